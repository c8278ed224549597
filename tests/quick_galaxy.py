"""A disc galaxy that is quick to compile: no part of it needs an incomplete gamma function."""

from bayesdust import disc_mocks
from bayesdust.disc_distribution import Disc, IsothermalHalo
from bayesdust.disc_galaxy import DiscGalaxy, mix
from bayesdust.potentials import NFW, MiyamotoNagai, SphericalAsPotential, Sum

POTENTIAL = Sum((MiyamotoNagai(6.8e10, 3.0, 0.28), SphericalAsPotential(NFW(1.1e7, 16.0))))


def quick_galaxy() -> DiscGalaxy:
    """Thin and thick disc and halo in `POTENTIAL`, within the survey's ball."""
    components = {
        "thin": Disc(POTENTIAL, R_d=2.5, sigma_0=27.0, R_sigma=8.0),
        "thick": Disc(POTENTIAL, R_d=2.2, sigma_0=50.0, R_sigma=9.0),
        "halo": IsothermalHalo(POTENTIAL, sigma=130.0),
    }
    return mix(components, {"thin": 0.78, "thick": 0.18, "halo": 0.04}, disc_mocks.SURVEY)
