"""What coordinator and site send each other, and in which precision: the model down, its change up, neither twice.

    down   theta' = fp16(theta), what both sides calculate from; its hash travels along and is checked on arrival
    up     c = Q(delta + e),  delta = theta_k - theta',  e' = delta + e - c        kept at the site for its next round
    then   the coordinator goes on with theta + c, theta in fp32, as if the site had been sent that and had made this change

Error feedback: what quantisation Q left out of one answer is added to the next. Seide et al., "1-bit stochastic gradient descent",
Interspeech 2014; it makes any contractive compressor converge like the exact method: Karimireddy et al., "Error feedback fixes SignSGD and
other gradient compression schemes", ICML 2019. Over the rounds nothing is lost of what the coordinator took:

    sum of c_r + e  =  sum of delta_r        both over the rounds r whose answer counted; e: what is owed after the last of them

An answer that did not count (refused, late, lost, of an attempt that failed) leaves no trace: a round starts from the e with which the last
one that counted has ended. Else a debt that went into a lost answer would be gone, and the rest of an update that was refused for its
length would make the next ones as long. Which answers counted the coordinator alone knows, and its requests say it (TaskRequest.counted).
One that lies chooses among the few debts to this run that the site keeps: it gets one of them twice, or does without; never anything else.

e is carried for the groups that were sent: stale errors of a group that a site stops sending would do harm when it comes back (Li and Li,
ICML 2023). With `up: fp32` the trained values travel as they are, and with `down: fp32` as well theta_k arrives bit for bit.

Anchors are sums and numbers of patients, and log-variances are a handful of scalars: both travel as they are, in fp32, never as changes.

A model that a site still holds is asked about by its hash alone. Who holds what the coordinator only guesses from the answers it got; a
site that was restarted says MODEL_NEEDED and gets the model at once.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
from flwr.app import RecordDict
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.groups import COMPLETION, group_of
from gmmas_schema.messages import Action, SiteReport, TaskRequest
from gmmas_schema.vocabulary import Modality
from gmmas_schema.wire import WireConfig
from strategies.codec import Parcel, pack_tensors, read_digest, read_report, read_request, unpack_tensors, write_report
from strategies.content_hash import hash_tensors
from strategies.encoding import FULL, Precision, decode, encode
from strategies.exchange import tensors_down

Float32 = NDArray[np.float32]
Tensors = Mapping[str, Float32]

FEEDBACK: Final = "feedback"
"""Kind of the state that a site carries for the wire (gmmas_workflows.site_state)."""
SHELF: Final = 2
"""Models a site holds: after training, the best and the last are asked about in turns."""
PATIENCE: Final = 2
"""A node that lacked a model this often is sent every model: its executor forgets (Flower's own does, after each message)."""

WHOLE_UP_TO: Final = 1024
"""Elements of the largest tensor that top-k leaves whole. Such tensors are 1 % of a network; thinned out, their few values would stand
still for rounds and then jump, which looks like an attack to strategies.norms."""

_FORMS: Final[Mapping[str, Precision]] = {"fp32": FULL, "fp16": Precision("f2"), "int8": Precision("i1")}


def travels_exactly(name: str) -> bool:
    """Tell whether a tensor is never rounded and never sent as a change."""
    group = group_of(name)
    return group == COMPLETION[1] or group.startswith("uncertainty.")


def precision_down(config: WireConfig) -> Callable[[str], Precision]:
    """Return how the coordinator packs the tensor of a name."""
    return lambda name: FULL if travels_exactly(name) else _FORMS[config.down]


def precision_up(config: WireConfig) -> Callable[[str], Precision]:
    """Return how a site packs the tensor of a name."""
    packed = replace(_FORMS[config.up], top_k=config.top_k, whole_up_to=WHOLE_UP_TO)
    return lambda name: FULL if travels_exactly(name) else packed


class CarriedState(Protocol):
    """Where a site keeps what it carries from round to round (gmmas_workflows.site_state)."""

    def before(self, *, run: str, round: int, counted: int | None) -> dict[str, Float32]:  # noqa: A002 - the field's word
        """Return the state that a round starts from, of those up to the last round that counted; empty where there is none."""

    def write(self, tensors: Tensors, *, run: str, round: int, counted: int | None) -> None:  # noqa: A002
        """Keep the state that a round has ended with, and none of rounds between the last one that counted and this one."""


class ModelShelf:
    """The models received last, by their hash. Sites of one process may share one: what they are sent is the same.

    Args:
        size: models it holds; the one that was not asked for longest makes room.
    """

    def __init__(self, size: int = SHELF) -> None:
        self._models: OrderedDict[str, Tensors] = OrderedDict()
        self._size = size

    def put(self, digest: str, tensors: Tensors) -> None:
        """Hold a model."""
        self._models[digest] = tensors
        self._models.move_to_end(digest)
        while len(self._models) > self._size:
            self._models.popitem(last=False)

    def take(self, digest: str) -> Tensors:
        """Return a model.

        Raises:
            ProtocolError: it is not here (code MODEL_NEEDED).
        """
        if digest not in self._models:
            raise ProtocolError("this site does not hold the model any more", got=digest[:12], code=ReasonCode.MODEL_NEEDED)
        self._models.move_to_end(digest)
        return self._models[digest]


class SiteWire:
    """The site's end.

    Args:
        feedback: keeps the error that is fed back.
        shelf: the models this site holds.
    """

    def __init__(self, feedback: CarriedState, *, shelf: ModelShelf | None = None) -> None:
        self._feedback, self._shelf = feedback, shelf or ModelShelf()

    def open(self, content: RecordDict) -> tuple[TaskRequest, dict[str, Float32]]:
        """Return a request and the model it is about: the one that came, or the one it names (none for DESCRIBE).

        Raises:
            ProtocolError: as read_request; code MODEL_NEEDED where the named model is not here.
        """
        request, tensors = read_request(content)
        digest = read_digest(content)
        if tensors:
            self._shelf.put(digest, tensors)
        elif digest:
            tensors = dict(self._shelf.take(digest))
        return request, tensors

    def answer(self, request: TaskRequest, report: SiteReport, *, received: Tensors, trained: Tensors) -> RecordDict:
        """Return the reply to TRAIN with the trained values, or to EVALUATE without any.

        Args:
            request: as it was opened.
            report: what the site did.
            received: the model as it was opened.
            trained: new values of the groups the site sends.

        Raises:
            ProtocolError: a trained value is not finite, in a precision that would round it.
        """
        if request.action is not Action.TRAIN:
            return write_report(report)
        # A repeated round is to give the same bytes, and safetensors, by which the trainer hands them over, keeps no order.
        trained = dict(sorted(trained.items()))
        if request.wire.up == "fp32":
            return write_report(report, pack_tensors(trained))
        return write_report(report, self._pack_changes(request, received=received, trained=trained))

    def _pack_changes(self, request: TaskRequest, *, received: Tensors, trained: Tensors) -> Parcel:
        """Pack changes with what earlier ones left out, and keep what these leave out."""
        exact = {name: value for name, value in trained.items() if travels_exactly(name)}
        run, number, counted = request.run, request.round, request.counted
        owed = self._feedback.before(run=run, round=number, counted=counted) if request.wire.error_feedback else {}
        changes = {name: _add(value - received[name], owed.get(name)) for name, value in trained.items() if name not in exact}
        parcel = pack_tensors(changes | exact, precision_of=precision_up(request.wire))
        if request.wire.error_feedback:
            sent = unpack_tensors(parcel)
            self._feedback.write({name: value - sent[name] for name, value in changes.items()}, run=run, round=number, counted=counted)
        return parcel


def _add(change: Float32, owed: Float32 | None) -> Float32:
    """Return the change with what is owed; a debt of another shape belongs to another network."""
    return change if owed is None or owed.shape != change.shape else change + owed


class Holdings:
    """Which models the nodes of a run are believed to hold. A wrong belief costs a message, never a round."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, str], list[str]] = {}
        self._missed: dict[tuple[int, str], int] = {}

    def has(self, node: int, activation: str, digest: str) -> bool:
        """Tell whether a node, which comes back with nothing under another activation, may be asked about a model by its hash."""
        key = (node, activation)
        return digest in self._digests.get(key, ()) and self._missed.get(key, 0) < PATIENCE

    def note(self, node: int, activation: str, digest: str) -> None:
        """Remember that a node has answered about a model; it forgets the one it was not asked about longest, as its shelf does."""
        known = self._digests.setdefault((node, activation), [])
        known[:] = [*(each for each in known if each != digest), digest][-SHELF:]

    def miss(self, node: int, activation: str) -> None:
        """Remember that a node did not hold what it should have."""
        key = (node, activation)
        self._missed[key] = self._missed.get(key, 0) + 1
        self._digests.pop(key, None)


class OutgoingModel:
    """A global model on its way to the sites, and the way back of their changes.

    Args:
        tensors: the global model, fp32.
        config: of the run.
    """

    def __init__(self, tensors: Tensors, *, config: WireConfig) -> None:
        self._tensors, self._config = tensors, config
        self._reference = tensors if config.down == "fp32" else {name: self._round(name, value) for name, value in tensors.items()}
        self._digests: dict[tuple[Modality, ...], str] = {}

    @property
    def as_received(self) -> Tensors:
        """The model as the sites calculate from it."""
        return self._reference

    def _round(self, name: str, value: Float32) -> Float32:
        segment, data = encode(name, value, precision_down(self._config)(name))
        return value if segment.form == "f4" else decode(segment, np.frombuffer(data, np.uint8))

    def digest(self, modalities: tuple[Modality, ...]) -> str:
        """Return the hash of what a site with these sequences receives."""
        if modalities not in self._digests:
            self._digests[modalities] = hash_tensors(tensors_down(self._reference, modalities=modalities))
        return self._digests[modalities]

    def pack(self, modalities: tuple[Modality, ...]) -> Parcel:
        """Return what a site with these sequences receives; packed anew at each call, for nothing is kept per site."""
        parcel = pack_tensors(tensors_down(self._tensors, modalities=modalities), precision_of=precision_down(self._config))
        return replace(parcel, digest=self.digest(modalities))

    def read(self, content: RecordDict) -> tuple[SiteReport, dict[str, Float32]]:
        """Return a reply to TRAIN or EVALUATE, and its tensors as if the site had been sent this very model in fp32.

        Names and shapes that the model does not have are returned as they came, to be refused by name (strategies.checks).

        Raises:
            ProtocolError: as read_report.
        """
        # Twice the model's own size, so that what is a little too much is named by the checks.
        report, received = read_report(content, limit=2 * sum(value.size for value in self._tensors.values()))
        return report, {name: self._rebuild(name, value) for name, value in received.items()}

    def _rebuild(self, name: str, value: Float32) -> Float32:
        own = self._tensors.get(name)
        if own is None or own.shape != value.shape or travels_exactly(name):
            return value
        if self._config.up == "fp32":
            return value if self._config.down == "fp32" else own + (value - self._reference[name])
        return own + value
