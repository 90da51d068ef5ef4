"""Sets weights with `assign` inside a compiled train step: an autoencoder with tied weights.

After every optimizer step the decoder's kernel becomes the transpose of the encoder's. First in plain Keras
and TensorFlow, then as a rule that any optimizer carries; both train the same, bit for bit.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import rlweights as rw

x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")


def autoencoder():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    code = keras.layers.Dense(3, name="encoder")(inputs)
    return keras.Model(inputs, keras.layers.Dense(8, name="decoder")(code))


def train(model, optimizer, after_step=lambda: None):
    optimizer.build(model.trainable_variables)  # all state exists before the first trace

    @tf.function(jit_compile=True)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - x))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        after_step()
        return loss

    losses = [float(step()) for _ in range(50)]
    assert step.experimental_get_tracing_count() == 1
    return losses


# Plain: the assignment comes behind the optimizer and reads the encoder behind it.
plain = autoencoder()
encoder, decoder = plain.get_layer("encoder"), plain.get_layer("decoder")
plain_losses = train(
    plain, keras.optimizers.Adam(0.01), lambda: decoder.kernel.assign(ops.transpose(encoder.kernel))
)


# As a rule: `update` returns the new value, the optimizer assigns it and checks its shape.
class Tied(rw.Intervention):
    """Sets a kernel to the transpose of another."""

    def __init__(self, source, **kwargs):
        super().__init__(**kwargs)
        self.source = source

    def update(self, weight, step):
        """Returns the transpose of the source."""
        return ops.transpose(self.source)


model = autoencoder()
rules = [Tied(model.get_layer("encoder").kernel, on="decoder/kernel")]
losses = train(model, rw.InterventionOptimizer(keras.optimizers.Adam(0.01), rules))

print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
for each in (plain, model):
    tied = each.get_layer("encoder").kernel.numpy().T
    assert np.array_equal(each.get_layer("decoder").kernel.numpy(), tied)
assert losses == plain_losses
assert losses[-1] < losses[0]
