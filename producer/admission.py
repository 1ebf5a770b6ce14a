"""May these events enter the log? Every limit on events is checked here, once, for every way in.

The log holds only applicable events from this door, so a mistake is the caller's answer and never a dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence

from schemas.errors import InvalidRequest
from schemas.events import sound_vectors, validate
from schemas.indexes import IndexSpec
from schemas.limits import BATCH_RECORDS_MAX
from schemas.operations import Event
from schemas.records import check_namespace

__all__ = ["admit"]


def admit(spec: IndexSpec, namespace: str, events: Sequence[Event]) -> None:
    """Raise `InvalidRequest` unless all of `events` may be appended to that namespace of that index.

    The error's fact `event` is the place of the first event that may not.
    """
    check_namespace(namespace)
    if not events:
        raise InvalidRequest("Invalid request: nothing to write, at least one record is needed.")
    if len(events) > BATCH_RECORDS_MAX:
        raise InvalidRequest(
            f"Invalid request: {len(events)} records in one batch; the limit is {BATCH_RECORDS_MAX}, send several.",
            limit=BATCH_RECORDS_MAX,
        )
    sound = sound_vectors(events, dimension=spec.dimension, vector_type=spec.vector_type)
    for place, (event, is_sound) in enumerate(zip(events, sound, strict=True)):
        try:
            validate(event, dimension=spec.dimension, vector_type=spec.vector_type, is_vector_sound=is_sound)
        except InvalidRequest as error:
            error.facts["event"] = place
            raise
