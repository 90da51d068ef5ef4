"""Parameter noise whose size follows the return, written from outside of the compiled step.

A contextual bandit: eight contexts, eight actions, reward 1 for the one action that fits. The policy acts
greedily; all exploration is noise in its weights, one draw for each iteration (Plappert et al., 2018,
https://arxiv.org/abs/1706.01905). The better it does, the less it explores:
stddev = largest * (1 - return). The return is computed here, in Python, and written to a feedback that the
compiled functions read; nothing is traced again.
"""

import keras
import numpy as np
import tensorflow as tf

import rlweights as rw

CONTEXTS = 8
contexts = tf.constant(np.repeat(np.eye(CONTEXTS, dtype="float32"), 8, axis=0))
right_action = tf.constant(np.repeat(np.random.default_rng(0).permutation(CONTEXTS), 8), tf.int32)


class OneMinusReturn(rw.Feedback):
    """A strength of `largest` at a return of 0, and of 0 at a return of 1."""

    def __init__(self, largest):
        super().__init__("return", initial=0.0)
        self.largest = largest

    def __call__(self, step):
        """Returns the strength at the return that was written last."""
        return self.largest * (1.0 - super().__call__(step))


keras.utils.set_random_seed(0)
policy = keras.Sequential(
    [keras.Input((CONTEXTS,)), keras.layers.Dense(CONTEXTS, use_bias=False, name="logits")], name="policy"
)
optimizer = rw.InterventionOptimizer(
    keras.optimizers.SGD(2.0), [rw.Noise(OneMinusReturn(2.0), placement="during_iteration")]
)
optimizer.build(policy.trainable_variables)
begin = tf.function(optimizer.begin_iteration, jit_compile=True)


@tf.function(jit_compile=True)
def iterate():
    """Acts with the noisy weights, and learns: the gradient at the noisy weights moves the clean ones."""
    actions = tf.argmax(policy(contexts), axis=1, output_type=tf.int32)
    rewards = tf.cast(actions == right_action, tf.float32)
    with tf.GradientTape() as tape:
        log_prob = tf.nn.log_softmax(policy(contexts))
        chosen = tf.gather(log_prob, actions, axis=1, batch_dims=1)
        loss = -tf.reduce_mean(rewards * chosen)
    optimizer.apply(tape.gradient(loss, policy.trainable_variables), policy.trainable_variables)
    optimizer.end_iteration()
    return tf.reduce_mean(rewards)


stddevs, returns = [], []
for iteration in range(300):
    begin()
    stddevs.append(float(optimizer.metrics()["noise/stddev"]))
    returns.append(float(iterate()))
    optimizer.feedback["return"] = np.mean(returns[-10:])  # the only line that the feedback needs
    if iteration % 50 == 0:
        print(f"iteration {iteration:3}: return {returns[-1]:.2f}, stddev {stddevs[-1]:.2f}")

print(f"at the end: return {np.mean(returns[-10:]):.2f}, stddev {stddevs[-1]:.2f}")
assert np.mean(returns[-10:]) > 0.95
assert stddevs[0] == 2.0
assert stddevs[-1] < 0.2
assert np.corrcoef(stddevs[1:], returns[:-1])[0, 1] < -0.8
for traced in (begin, iterate):
    assert traced.experimental_get_tracing_count() == 1
