"""Robbins' normal mixture: a bound on a Brownian motion that holds at all times at once, and what it says of an estimate.

An estimate with variance v, standardised as z, has the information V (in samples: the variance of one sample over v). Then z * sqrt(V) is,
asymptotically, a Brownian motion in the time V, and for every λ, exp(λ S - λ² V / 2) with S = z sqrt(V) is a martingale with mean 1. Mixed
over a half-normal λ > 0 with density 2 N(λ; 0, 1/rho) it stays one:

    E(z, V) = 2 sqrt(rho / (V + rho)) exp(z² V / (2 (V + rho))) Φ(z sqrt(V / (V + rho)))

(Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, one-sided normal mixture; as an asymptotic confidence sequence with an estimated
variance: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024). By Ville's inequality E reaches 1/a with probability at most a, however
often one looks. rho must not depend on the data: it says at how much information the bound is tightest (about 10 rho), and costs little
elsewhere.

A variance that was itself estimated, with nu degrees of freedom, makes z a Student's t; it is taken to the normal scale by
(8 nu + 1) / (8 nu + 3) sqrt(nu log(1 + t² / nu)) (Wallace 1959), so that few windows or devices weigh what they are worth.
"""

import math
from typing import Final

import msgspec

RHO: Final = 40.0
"""Tightest around 400 effective samples (800 on each side)."""

_E_MAX: Final = 1e12
_LOG_2PI: Final = math.log(2 * math.pi)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number that was estimated: its variance, the information behind it in samples, and the degrees of freedom of the variance."""

    value: float
    variance: float
    information: float
    freedom: float = math.inf


def log_e_value(z: float, information: float, rho: float = RHO) -> float:
    """Return the logarithm of the e-value against "at most 0" for an estimate that stands `z` standard errors above."""
    if information <= 0:
        return 0.0
    share = information / (information + rho)
    x = z * math.sqrt(share)
    return math.log(2) + 0.5 * math.log1p(-share) + 0.5 * x * x + log_normal_below(x)


def critical_z(information: float, alpha: float, rho: float = RHO) -> float:
    """Return the `z` at which the e-value reaches 1/`alpha`; infinite without information."""
    if information <= 0:
        return math.inf
    share = information / (information + rho)
    base = math.log(1 / alpha) - math.log(2) - 0.5 * math.log1p(-share)
    x = math.sqrt(max(0.0, 2 * base))
    for _ in range(50):
        # Newton's step on base = x²/2 + log Φ(x), whose slope is x plus the inverse Mills ratio.
        below = log_normal_below(x)
        slope = x + math.exp(-0.5 * (x * x + _LOG_2PI) - below)
        step = (base - 0.5 * x * x - below) / slope
        x += step
        if abs(step) < 1e-12:
            break
    return x / math.sqrt(share)


def e_value(estimate: Estimate, null: float) -> float:
    """Return the e-value against "the true value is at most `null`", at most 10^12."""
    log = log_e_value(normal_scale(_standardised(estimate, null), estimate.freedom), estimate.information)
    return min(_E_MAX, math.exp(min(log, 700.0)))


def radius(estimate: Estimate, alpha: float) -> float:
    """Return how far below the estimate the true value may lie, at any time, but for a probability of `alpha`. The same holds above."""
    return student_scale(critical_z(estimate.information, alpha), estimate.freedom) * math.sqrt(estimate.variance)


def _standardised(estimate: Estimate, null: float) -> float:
    off = estimate.value - null
    return off / math.sqrt(estimate.variance) if estimate.variance > 0 else math.copysign(math.inf, off) if off else 0.0


def normal_scale(t: float, freedom: float) -> float:
    """Return the normal deviate that is about as rare as Student's `t`."""
    if math.isinf(freedom) or not t:
        return max(-1e6, min(1e6, t))
    if freedom <= 0:
        return 0.0
    size = min(abs(t), 1e100)
    return math.copysign(_wallace(freedom) * math.sqrt(freedom * math.log1p(size * size / freedom)), t)


def student_scale(z: float, freedom: float) -> float:
    """Return Student's t that is about as rare as the normal deviate `z`: the inverse of `normal_scale`."""
    if math.isinf(freedom) or math.isinf(z):
        return z
    if freedom <= 0:
        return math.inf
    z /= _wallace(freedom)
    return math.copysign(math.sqrt(freedom * math.expm1(z * z / freedom)), z) if z * z / freedom < 700 else math.copysign(math.inf, z)


def _wallace(freedom: float) -> float:
    return (8 * freedom + 1) / (8 * freedom + 3)


def log_normal_below(x: float) -> float:
    """Return log Φ(x), also far below 0."""
    if x > -10:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2)))
    square = 1 / (x * x)
    return -0.5 * (x * x + _LOG_2PI) - math.log(-x) + math.log1p(-square * (1 - 3 * square * (1 - 5 * square)))
