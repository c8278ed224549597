"""Tables with Gaia's columns for tests, and stars whose fate under each cut is known."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import MaskedColumn, Table

from bayesdust.catalogs.astrometry import CORRELATIONS
from bayesdust.errors import BayesdustError

UNITS = {
    **dict.fromkeys(("ra", "dec", "ecl_lat"), u.deg),
    **dict.fromkeys(("parallax", "ra_error", "dec_error", "parallax_error"), u.mas),
    **dict.fromkeys(("pmra", "pmdec", "pmra_error", "pmdec_error"), u.mas / u.yr),
    **dict.fromkeys(("radial_velocity", "radial_velocity_error"), u.km / u.s),
    **dict.fromkeys(("phot_g_mean_mag", "grvs_mag", "bp_rp"), u.mag),
    **dict.fromkeys(("nu_eff_used_in_astrometry", "pseudocolour"), u.um**-1),
}
# A red clump star at 1 kpc, once the zero point is taken off, that passes every cut.
CLUMP = {
    "ra": 120.0,
    "dec": -30.0,
    "parallax": 1.0,
    "pmra": 3.0,
    "pmdec": -5.0,
    "radial_velocity": 20.0,
    "ra_error": 0.015,
    "dec_error": 0.014,
    "parallax_error": 0.02,
    "pmra_error": 0.02,
    "pmdec_error": 0.021,
    "radial_velocity_error": 0.8,
    "phot_g_mean_mag": 10.5,
    "grvs_mag": 9.6,
    "bp_rp": 1.2,
    "nu_eff_used_in_astrometry": 1.45,
    "pseudocolour": np.nan,
    "ecl_lat": -50.0,
    "astrometric_params_solved": 31,
}


def stars(*changes: dict, n: int = 0, seed: int = 0) -> Table:
    """`n` scattered copies of `CLUMP`, then one copy for each of the `changes` made to it."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, value in CLUMP.items():
        changed = [change.get(name, value) for change in changes]
        columns[name] = np.array([value] * n + changed, dtype=float)
    columns["ra"][:n] = rng.uniform(0.0, 360.0, n)
    columns["dec"][:n] = np.degrees(np.arcsin(rng.uniform(-1.0, 1.0, n)))
    columns["parallax"][:n] = rng.uniform(0.4, 1.6, n)
    columns["radial_velocity"][:n] = rng.normal(0.0, 40.0, n)
    for i, name in enumerate(CORRELATIONS):
        columns[name] = np.full(n + len(changes), 0.03 * (i - 4))
    table = Table()
    for name, values in columns.items():
        gaps = np.isnan(values)
        table[name] = MaskedColumn(values, mask=gaps) if gaps.any() else values
        table[name].unit = UNITS.get(name)
    return table


def sentence(call, *parts: str) -> None:
    """The call raises one sentence that holds every part."""
    with pytest.raises(BayesdustError) as caught:
        call()
    text = str(caught.value)
    assert text.endswith(".")
    assert "\n" not in text
    for part in parts:
        assert part in text, text
