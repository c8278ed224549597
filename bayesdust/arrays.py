"""The types that equations take and give."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array

__all__ = ["Array", "Real"]

# A number or an array of numbers: JAX's, numpy's or Python's. Checked at run time in the tests; a static
# checker, which does not know that JAX turns any mixture of them into its own, is told to let it pass.
if TYPE_CHECKING:
    Real = Any
else:
    Real = Array | np.ndarray | np.number | float | int | list
