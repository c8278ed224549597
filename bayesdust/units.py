"""Units inside the package: kpc, km/s, Msun, radians; every constant with its derivation beside it.

The defining values are IAU 2015 resolution B2/B3 (parsec, nominal solar mass parameter) and
CODATA 2022 / SI (speed of light, electronvolt); they are written out so that no import is needed.
"""

import math

# Parsec: 648000/pi astronomical units of 149 597 870 700 m (IAU 2012 B2, 2015 B2).
PARSEC_M = 648_000.0 / math.pi * 149_597_870_700.0
KPC_KM = PARSEC_M  # 1 kpc in km equals 1 pc in m
KPC_CM = PARSEC_M * 1e5

# Nominal solar mass parameter GM_sun = 1.3271244e20 m^3 s^-2 (IAU 2015 B3), in kpc (km/s)^2 / Msun:
# 1e-6 turns (m/s)^2 into (km/s)^2, division by metres per kpc turns m into kpc.
G = 1.3271244e20 * 1e-6 / (PARSEC_M * 1e3)

PC = 1e-3  # kpc
# Msun/pc2 between the plane and where the force towards it is 1 (km/s)^2/kpc: K_z/(2 pi G)
COLUMN = PC**2 / (2 * math.pi * G)

# Solar mass as energy: GM_sun / G_CODATA * c^2, in GeV.
_G_SI = 6.674_30e-11  # m^3 kg^-1 s^-2, CODATA 2022
_C_SI = 299_792_458.0  # m/s
_GEV_J = 1.602_176_634e-10  # J
MSUN_GEV = 1.3271244e20 / _G_SI * _C_SI**2 / _GEV_J

# 1 Msun/kpc^3 in GeV/cm^3.
DENSITY_GEV_CM3 = MSUN_GEV / KPC_CM**3
# J: 1 Msun^2 kpc^-5 in GeV^2 cm^-5; D: 1 Msun kpc^-2 in GeV cm^-2 (per steradian absorbed in dOmega).
J_GEV2_CM5 = MSUN_GEV**2 / KPC_CM**5
D_GEV_CM2 = MSUN_GEV / KPC_CM**2

DEG = math.pi / 180.0
ARCMIN = DEG / 60.0
ARCSEC = DEG / 3600.0
MAS = 1e-3 * ARCSEC
MAS_DEG = 1e-3 / 3600.0  # 1 mas in degrees

# 1 mas/yr at 1 kpc in km/s: au per Julian year in km/s (4.740470...), times mas*kpc = au.
MAS_YR_KPC_KMS = 149_597_870.700 / (365.25 * 86_400.0)
