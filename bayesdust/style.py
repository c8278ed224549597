"""How figures and numbers look: colours, symbols of the parameters, digits shown.

The colours are those of Okabe & Ito, told apart by the colour-blind; the prior is always grey, the
posterior blue, published values orange, the truth of a mock dashed black.
"""

import math
from typing import Any

BLUE, ORANGE, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#8C8C8C"
CHAIN_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
STYLE: Any = {
    "font.size": 9.0,
    "axes.labelsize": 10.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.4,
    "mathtext.fontset": "dejavusans",
    "svg.hashsalt": "bayesdust",
    "svg.fonttype": "path",
}
SYMBOLS = {
    "gamma": r"$\gamma$",
    "beta_ani": r"$\beta_{\rm ani}$",
    "v_sys": r"$v_{\rm sys}$",
    "rho_s": r"$\rho_{\rm s}$",
    "r_s": r"$r_{\rm s}$",
    "ln_r_s": r"$\ln r_{\rm s}$",
    "log10_r_s": r"$\log_{10} r_{\rm s}$",
    "beta_tilde": r"$\tilde\beta = \beta/(2-\beta)$",
    "rhalf": r"$R_{\rm half}$",
    "distance": "distance",
    "r_a": r"$r_{\rm a}$",
    "ln_r_a": r"$\ln r_{\rm a}$",
    "ln_mass": r"$\ln M(<1.8\,R_{\rm half})$",
    "ln_rho_dm": r"$\ln \rho_{\rm DM}$",
    "q": r"$q$",
    "ln_q": r"$\ln q$",
    "ln_mass_disc": r"$\ln M_{\rm disc}$",
    "a_disc": r"$a_{\rm disc}$",
    "b_disc": r"$b_{\rm disc}$",
    "ln_a_disc": r"$\ln a_{\rm disc}$",
    "ln_b_disc": r"$\ln b_{\rm disc}$",
    "rho_disc_sun": r"$\rho_{\rm disc,\odot}$",
    "ln_mass_bulge": r"$\ln M_{\rm bulge}$",
    "rho_dm_sun": r"$\rho_{\rm DM,\odot}$",
}


def plain(text: object) -> str:
    """Text that matplotlib shows as it is: dollar signs would start mathematics."""
    return str(text).replace("$", r"\$")


def decimals(error: float, figures: int = 2) -> int:
    """Decimals that show `error` to so many significant figures (never negative)."""
    if not math.isfinite(error) or error <= 0:
        return 3
    return max(0, figures - 1 - math.floor(math.log10(error)))


def fixed(value: float, digits: int) -> str:
    """Fixed-point text without a negative zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"
