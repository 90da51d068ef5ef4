"""Words for what flows through the package: a glossary, of which annotations are made.

Shapes stand in brackets in docstrings, `[T, N, ...]`: T time steps, N environments, "..." whatever one
entry has; `[]` is a scalar.
"""

from typing import Any, TypeAlias

import numpy as np

Tensor: TypeAlias = Any
"""A tensor of the backend, symbolic in a graph. Any, because TensorFlow ships no complete stubs, and because
a variable or an array does wherever a tensor is only read."""

Scalar: TypeAlias = Any
"""A tensor of shape [], or a number of Python's or NumPy's where nothing is traced."""

Variable: TypeAlias = Any
"""A `keras.Variable`, which is read like a tensor and written with `assign`. Any, because Keras exports the
class from its backend at run time."""

Array: TypeAlias = np.ndarray
"""An array of NumPy's: on the host, never symbolic."""
