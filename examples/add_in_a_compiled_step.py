"""Adds to weights with `assign_add` inside a compiled train step, with a static shape check.

What is added is a learning rule: Oja's rule, which turns the weights of a linear unit toward
the first principal component of its inputs. No gradient is needed.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import rlweights as rw

rng = np.random.default_rng(0)
x = (rng.normal(size=(512, 3)) * [3.0, 1.0, 0.3]).astype("float32") @ np.linalg.qr(rng.normal(size=(3, 3)))[
    0
].astype("float32")
first_component = np.linalg.svd(x)[2][0]


def oja(weight):
    """The difference [in, out] that a batch of Oja's rule makes to a kernel [in, out]."""
    outputs = ops.matmul(x, weight)
    return 0.01 * (ops.matmul(x.T, outputs) / len(x) - weight * ops.mean(ops.square(outputs), axis=0))


def unit():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, name="unit")])


# Plain. A Keras variable adds whatever broadcasts, so the shape is checked: while tracing, at no cost later.
def add(variable, difference):
    if tuple(difference.shape) != tuple(variable.shape):
        raise ValueError(f"{variable.path} {tuple(variable.shape)}, added {tuple(difference.shape)}")
    variable.assign_add(difference)


plain = unit()
[kernel] = plain.trainable_variables


@tf.function(jit_compile=True)
def step():
    add(kernel, oja(kernel))


@tf.function(jit_compile=True)
def mistaken():
    add(kernel, oja(kernel)[0])


for _ in range(200):
    step()
try:
    mistaken()
    raise AssertionError("a difference of shape [1] was added to a kernel [3, 1]")
except ValueError as error:
    print("refused:", str(error).splitlines()[-1])

# As a rule, which checks shape and dtype by itself. It acts between iterations; an optimizer of learning rate
# 0 stands for "no gradient step".
model = unit()
rule = rw.Increment(lambda weight, step: oja(weight), placement="after_iteration")
optimizer = rw.InterventionOptimizer(keras.optimizers.SGD(0.0), [rule])
optimizer.build(model.trainable_variables)
end_iteration = tf.function(optimizer.end_iteration, jit_compile=True)
for _ in range(200):
    optimizer.begin_iteration()
    end_iteration()

for each in (plain, model):
    [found] = each.get_weights()
    cosine = abs(found[:, 0] @ first_component) / np.linalg.norm(found)
    print(f"cosine with the first principal component: {cosine:.6f}, norm {np.linalg.norm(found):.4f}")
    assert cosine > 0.9999
    assert abs(np.linalg.norm(found) - 1.0) < 0.01
