"""Ring 1: weights of Keras models, and rules that rewrite them; nothing of reinforcement learning."""
