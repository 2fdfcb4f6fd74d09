"""Why updates failed, most likely, and what to do next: from what the devices say, and from who failed and who did not.

What a device says of itself decides first (`SYMPTOMS`). Where it says nothing telling, those that failed are compared with those that did
not (`TRAITS`): a class, variant or site counts as the cause when so many of its devices would fail by chance with a probability of at
most `chance_max` (Fisher's exact test, one-sided). When nearly everything fails it is the revision. Otherwise it says that it is
unclear.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from math import exp, lgamma
from typing import Final

import msgspec

from edgewise.resources.rollout import Explanation


class ExplainLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`devices_named_max` devices are named per cause, `explanations_max` causes told, texts cut to `characters_max`. A trait is a cause up
    to a probability of `chance_max` by chance; a revision is one from `revision_share_min` of at least `revision_ended_min` devices that
    ended."""

    devices_named_max: int = 10
    explanations_max: int = 6
    characters_max: int = 500
    chance_max: float = 0.05
    revision_share_min: float = 2 / 3
    revision_ended_min: int = 3


LIMITS: Final = ExplainLimits()


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A device whose update ended, in `reason` and `message` by its own account if it failed."""

    device: str
    device_class: str = ""
    site: str = ""
    variant: str = ""
    failed: bool = False
    reason: str = ""
    message: str = ""

    @property
    def words(self) -> str:
        """What the device says."""
        return ": ".join(part for part in (self.reason, self.message) if part)


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What else advice needs: the variants of the version with their sizes in bytes, and the memory that the workload may use in bytes
    (0: not said)."""

    variants: dict[str, int] = {}
    memory: int = 0


class Symptom(msgspec.Struct, frozen=True, kw_only=True):
    """A cause that a device tells: by its reason, or by words in what it says."""

    cause: str
    reasons: frozenset[str] = frozenset()
    pattern: str = ""
    says: Callable[[Sequence[Member], Context], str]
    advice: Callable[[Sequence[Member], Context], str]


def _short_of_room(failed: Sequence[Member], context: Context) -> str:
    del context
    found = (re.search(r"(\d+) bytes.* needed, (-?\d+) are free", each.message) for each in failed)
    numbers = [(int(match[1]), int(match[2])) for match in found if match]
    if not numbers:
        return f"no room on the disk ({failed[0].words})"
    return f"{_size(max(0, min(free for _, free in numbers)))} of disk free where {_size(max(need for need, _ in numbers))} are needed"


def _smaller(failed: Sequence[Member], context: Context) -> str:
    """Return the advice to use a smaller variant, when there is one."""
    used = {each.variant for each in failed}
    sizes = context.variants
    least = min((sizes[name] for name in used if name in sizes), default=0)
    smaller = [(size, name) for name, size in sizes.items() if size < least]
    return f", or prefer the smaller variant {min(smaller)[1]} ({_size(min(smaller)[0])})" if smaller else ""


def _quoted(failed: Sequence[Member], context: Context) -> str:
    del context
    words, count = Counter(_plain(each.words) for each in failed).most_common(1)[0]
    if not words:
        return "they say nothing of it"
    return f"“{words}”" if count == len(failed) else f"{count} say “{words}”"


def _memory_words(failed: Sequence[Member], context: Context) -> str:
    limit = f" (it may use {_size(context.memory)})" if context.memory else ""
    return f"{_quoted(failed, context)}, as happens when memory runs out{limit}"


SYMPTOMS: Final = (
    Symptom(
        cause="disk",
        reasons=frozenset({"DiskFull"}),
        pattern=r"no space left|not enough room|disk is full",
        says=_short_of_room,
        advice=lambda failed, context: f"free space on {_them(failed)}{_smaller(failed, context)}",
    ),
    Symptom(
        cause="damaged disk",
        reasons=frozenset({"DiskFailed", "DiskReadOnly", "DiskDamaged", "StorageFailed", "DamagedRecords"}),
        pattern=r"read-only file system|input/output error",
        says=_quoted,
        advice=lambda failed, _: f"check the disk of {_them(failed)}; a device that writes nothing must be repaired or replaced",
    ),
    Symptom(
        cause="memory",
        reasons=frozenset({"OutOfMemory"}),
        pattern=r"\bsignal 9\b|out of memory|memoryerror|bad_alloc|cannot allocate memory|std::bad_alloc",
        says=_memory_words,
        advice=lambda failed, context: f"give the workload more memory (resources.memory){_smaller(failed, context)}",
    ),
    Symptom(
        cause="not trusted",
        reasons=frozenset({"WrongDigest", "WrongSize", "Mismatch", "Expired", "RolledBack", "BadSignature", "UnknownTarget", "Malformed"}),
        pattern=r"not to be trusted",
        says=_quoted,
        advice=lambda _, __: (
            "check the clock of these devices and what stands between them and the control plane; publish the version again"
        ),
    ),
    Symptom(
        cause="network",
        reasons=frozenset({"FetchFailed", "Unreachable", "LostContact", "TlsFailed", "ProtocolBroken", "Cancelled"}),
        pattern=r"timed out|connection (?:was )?(?:refused|reset|ended|closed)|network is unreachable|name resolution|proxy",
        says=_quoted,
        advice=lambda failed, _: f"check the link of {_them(failed)}; a longer deviceDeadline gives a slow link more time",
    ),
    Symptom(
        cause="not supported",
        reasons=frozenset({"Unsupported", "NotRunnable"}),
        pattern=r"illegal instruction|signal 4\b|exec format error",
        says=_quoted,
        advice=lambda _, __: "publish a variant for what these devices are, or leave them out with placement.selector",
    ),
)
"""What devices say, the most telling first."""


class Trait(msgspec.Struct, frozen=True, kw_only=True):
    """What devices may have in common, and what to do if that is why they fail."""

    name: str
    of: Callable[[Member], str]
    advice: Callable[[str], str]


TRAITS: Final = (
    Trait(
        name="device class",
        of=lambda each: each.device_class,
        advice=lambda name: f"try the version on one {name} by hand; leave the class out with placement.selector until it is fixed",
    ),
    Trait(
        name="variant",
        of=lambda each: each.variant,
        advice=lambda name: f"test variant {name} on its own, and publish the version without it or with it mended",
    ),
    Trait(
        name="site",
        of=lambda each: each.site,
        advice=lambda name: f"look at what is special at {name}: its network, its configuration, its power",
    ),
)
"""What those that failed may have in common and those that did not lack; of equally likely ones the first."""


def explain(members: Sequence[Member], context: Context | None = None, limits: ExplainLimits = LIMITS) -> tuple[Explanation, ...]:
    """Return the likely causes of the failures among `members`, all devices whose update ended, most devices first."""
    context = context or Context()
    failed = sorted((each for each in members if each.failed), key=lambda each: each.device)
    groups: dict[int, list[Member]] = {}
    unknown: list[Member] = []
    for each in failed:
        place = _symptom(each)
        (unknown if place is None else groups.setdefault(place, [])).append(each)
    found = [_told(SYMPTOMS[place], group, len(failed), context, limits) for place, group in sorted(groups.items())]
    if unknown:
        others = [each for each in members if not each.failed]
        found.append(_compared(unknown, others, context, limits))
    found.sort(key=lambda each: -each.count)
    return tuple(found[: limits.explanations_max])


def _symptom(member: Member) -> int | None:
    words = member.words.lower()
    for place, symptom in enumerate(SYMPTOMS):
        if member.reason in symptom.reasons:
            return place
    return next((place for place, each in enumerate(SYMPTOMS) if each.pattern and re.search(each.pattern, words)), None)


def _told(symptom: Symptom, group: Sequence[Member], failed: int, context: Context, limits: ExplainLimits) -> Explanation:
    shared = [trait.of(group[0]) for trait in TRAITS[:1] if len(group) > 1 and len({trait.of(each) for each in group}) == 1]
    alike = f"; all are {shared[0]}" if shared and shared[0] else ""
    evidence = f"{len(group)} of {failed} failed devices: {symptom.says(group, context)}{alike}"
    return _explanation(symptom.cause, evidence, symptom.advice(group, context), group, limits)


def _compared(unknown: Sequence[Member], others: Sequence[Member], context: Context, limits: ExplainLimits) -> Explanation:
    ended = len(unknown) + len(others)
    quote = _quoted(unknown, context)
    trait = _trait(unknown, others, limits)
    if trait is not None:
        kind, value, bad, of = trait
        rest, well = len(unknown) - bad, ended - of
        cause = f"{kind.name} {value}"
        evidence = f"{bad} of {of} devices of {kind.name} {value} failed, {rest} of {well} others; {quote}"
        return _explanation(cause, evidence, kind.advice(value), unknown, limits)
    if ended >= limits.revision_ended_min and len(unknown) >= limits.revision_share_min * ended:
        classes = len({each.device_class for each in unknown})
        evidence = f"{len(unknown)} of {ended} devices of {classes} {'class' if classes == 1 else 'classes'} failed; {quote}"
        advice = f"mend the version and publish it anew; {_logs(unknown)}"
        return _explanation("the revision itself", evidence, advice, unknown, limits)
    evidence = f"{len(unknown)} of {ended} devices failed and have nothing in common that the others lack; {quote}"
    if ended < limits.revision_ended_min:
        evidence = f"{len(unknown)} of {ended} devices failed, too few to tell the revision from the device; {quote}"
    return _explanation("unclear", evidence, _logs(unknown), unknown, limits)


def _trait(unknown: Sequence[Member], others: Sequence[Member], limits: ExplainLimits) -> tuple[Trait, str, int, int] | None:
    """Return the trait that those that failed have in common with the smallest probability by chance, if it is small enough."""
    best: tuple[float, int, str, int, int] | None = None
    ended = len(unknown) + len(others)
    for place, trait in enumerate(TRAITS):
        bad, of = Counter(map(trait.of, unknown)), Counter(map(trait.of, (*unknown, *others)))
        for value, count in sorted(bad.items()):
            # What is said to be the cause must fail mostly, and make up most of what failed.
            if not value or 2 * count <= of[value] or 2 * count <= len(unknown):
                continue
            found = (chance(count, of[value], len(unknown), ended), place, value, count, of[value])
            best = found if best is None or found < best else best
    if best is None or best[0] > limits.chance_max:
        return None
    return TRAITS[best[1]], *best[2:]


def chance(hit: int, group: int, failed: int, total: int) -> float:
    """Return the probability that at least `hit` of a `group` are among `failed` of `total` drawn by chance."""
    least = max(hit, failed - (total - group))
    ways = (_log_comb(group, k) + _log_comb(total - group, failed - k) for k in range(least, min(group, failed) + 1))
    all_ways = _log_comb(total, failed)
    return min(1.0, sum(exp(way - all_ways) for way in ways))


def _log_comb(whole: int, part: int) -> float:
    return lgamma(whole + 1) - lgamma(part + 1) - lgamma(whole - part + 1)


def _explanation(cause: str, evidence: str, advice: str, group: Sequence[Member], limits: ExplainLimits) -> Explanation:
    most = limits.characters_max
    return Explanation(
        cause=cause[:most],
        evidence=evidence[:most],
        advice=advice[:most],
        count=len(group),
        devices=tuple(each.device for each in group[: limits.devices_named_max]),
    )


def _plain(words: str) -> str:
    """Return words without what differs from device to device: revisions, digests, long numbers."""
    text = re.sub(r"\b(?:revision )?[0-9a-f]{8,}\b", "…", " ".join(words.split()))
    return text if len(text) <= _QUOTE_MAX else f"{text[:_QUOTE_MAX]}…"


_QUOTE_MAX: Final = 200


def _them(failed: Sequence[Member]) -> str:
    return failed[0].device if len(failed) == 1 else "these devices"


def _logs(failed: Sequence[Member]) -> str:
    return f"edgewise logs {failed[0].device}/WORKLOAD shows what it wrote"


_UNITS: Final[Mapping[str, int]] = {"GB": 10**9, "MB": 10**6, "kB": 1000}


def _size(count: int) -> str:
    return next((f"{count / unit:.3g} {name}" for name, unit in _UNITS.items() if count >= unit), f"{count} bytes")
