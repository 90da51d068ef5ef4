"""Arrays and scalars of float32."""

import numpy as np


def f32(values):
    return np.asarray(values, np.float32)


def value(result):
    result = np.asarray(result)
    assert result.dtype == np.float32
    return result
