"""Clips weights inside a compiled train step: plainly, and with the paper's rule.

The clip comes behind the optimizer step. The bound is 1 / sqrt(fan_in) of each layer, where a bias takes the
fan-in of its layer's kernel (Elsayed et al., 2024, https://arxiv.org/abs/2407.01704).
"""

import keras
import numpy as np
import tensorflow as tf

import rlweights as rw

rng = np.random.default_rng(0)
x, y = rng.normal(size=(256, 4)).astype("float32"), 10.0 * rng.normal(size=(256, 1)).astype("float32")


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(16, "tanh", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(1, name="head")(hidden))


def train(model, optimizer, after_step=lambda: None):
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=True)
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        after_step()

    for _ in range(50):
        step()
        for variable in model.trainable_variables:  # inside after every step, to the last bit
            assert np.abs(variable.numpy()).max() <= bounds[variable.path]


# Plain
plain = network()
bounds = {
    v.path: np.float32(layer.kernel.shape[0] ** -0.5)  # Keras kernels are (in, out)
    for layer in plain.layers[1:]
    for v in layer.trainable_variables
}


def clip():
    for v in plain.trainable_variables:
        v.assign(tf.clip_by_value(v, -bounds[v.path], bounds[v.path]))


train(plain, keras.optimizers.Adam(0.05), clip)

# As a rule, which also measures: the share of weights that the last clip changed
model = network()
optimizer = rw.InterventionOptimizer(keras.optimizers.Adam(0.05), [rw.Clipping(1.0, unit="fan_in")])
train(model, optimizer)
clipped = float(optimizer.metrics()["clipping/clipped"])

print(f"{clipped:.0%} of the weights were clipped in the last step")
assert clipped > 0.1
for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
    np.testing.assert_array_equal(one, other)
