"""dsph_gnfw with the errors of the velocities left out: wrong, and there to be found out.

`bayesdust calibrate models/wrong/dsph_gnfw_no_errors.py --drawn-by dsph_gnfw` must reject it.
"""

import dataclasses

import numpy as np

from bayesdust.inference.programs import load

KIND = "dwarf"
RIGHT = load("dsph_gnfw")


def prepare(stars, options):
    data = RIGHT.prepare(stars, options)
    return dataclasses.replace(data, v_los_err=np.zeros_like(data.v_los_err))


model = RIGHT.model
