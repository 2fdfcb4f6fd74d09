"""Opening secrets that are sealed to this device. Short-lived process only."""

import msgspec

from edgewise.agent.jobs import Unsealed, UnsealJob
from edgewise.engine.identity import IdentityDamaged, read_keys
from edgewise.ports.files import Files, FilesError
from edgewise.resources.decoding import UNREADABLE
from edgewise.trust.sealing import SealingError, secret_context, unseal


def open_secrets(job: UnsealJob, files: Files) -> Unsealed:
    """Open what can be opened; say of each of the others why not, without a word of what is in it."""
    try:
        keys = read_keys(files)
    except (IdentityDamaged, FilesError) as error:
        return Unsealed(secrets={}, failed={each.name: str(error) for each in job.secrets})
    if keys is None:
        return Unsealed(secrets={}, failed={each.name: "this device has no keys" for each in job.secrets})
    opened: dict[str, dict[str, str]] = {}
    failed: dict[str, str] = {}
    for each in job.secrets:
        try:
            plain = unseal(keys.sealing_key, each.sealed, secret_context(job.device_uid, job.namespace, each.name))
            opened[each.name] = msgspec.msgpack.decode(plain, type=dict[str, str])
        except SealingError as error:
            failed[each.name] = str(error)
        except UNREADABLE:
            failed[each.name] = "what was sealed is no mapping of keys to values"
    return Unsealed(secrets=opened, failed=failed)
