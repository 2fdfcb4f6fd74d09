"""What stories of updates begin with, and what they look at."""

from engine_rig import Rig, want

from edgewise.engine.protocol import Activate, Cancel, Fetch, Persist, Remove, Start, Stop


def order(rig: Rig) -> list[str]:
    names = []
    for effect in rig.log:
        if isinstance(effect, Persist):
            names += [type(record).__name__ for record in effect.records]
        elif isinstance(effect, Fetch | Start | Stop | Activate | Remove | Cancel):
            names.append(type(effect).__name__ + (f" {effect.slot}" if isinstance(effect, Start | Stop | Activate) else ""))
    return names


def committed(*revisions: str, kind: str = "model", **fields: object) -> Rig:
    rig = Rig(**fields)
    for revision in revisions:
        rig.desire(want(revision, kind=kind, probation_seconds=1))
        rig.run(10)
    rig.log.clear()
    return rig
