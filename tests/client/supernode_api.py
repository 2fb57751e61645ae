"""The SuperNode's real runtime API over TLS on loopback, without a SuperLink: messages are put in and replies taken out by the test."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

from client.executor import SuperNodeAddress
from gmmas_runtime.keys import issue_server_certificate, make_authority
from tests.client.loopback import free_port, serve_app
from tests.gmmas_runtime.waiting import wait_until

RUN_ID, NODE_ID, SERIES_ID = 11, 22, 33
SECRET = b"a secret of the loopback"
POISONED_BUNDLE = b"PK this is no zip: unpacking or importing it would fail"
BUNDLE_HASH = hashlib.sha256(POISONED_BUNDLE).hexdigest()


@dataclass
class SuperNode:
    """State and address of a SuperNode; serve() starts its API."""

    folder: Path
    port: int = field(default_factory=free_port)
    factory: NodeStateFactory = field(default_factory=lambda: NodeStateFactory(ObjectStoreFactory()))

    def __post_init__(self) -> None:
        self.authority = make_authority(self.folder / "authority", name="loopback")
        issue_server_certificate(self.folder / "authority", self.folder / "server", hosts=["127.0.0.1"])
        self.state.set_node_id(NODE_ID)

    @property
    def state(self):
        return self.factory.state()

    @property
    def address(self) -> SuperNodeAddress:
        return SuperNodeAddress(f"127.0.0.1:{self.port}", self.authority.certificate_path.read_bytes(), SECRET)

    @contextmanager
    def serve(self, *, secret: bytes = SECRET) -> Iterator[None]:
        app = create_app(self.factory, superexec_auth_secret=secret)
        with serve_app(app, port=self.port, certificates=self.folder / "server"):
            yield

    def put(self, content: RecordDict, *, message_type: str) -> Message:
        """Do what a SuperNode does with a message from the coordinator."""
        run = Run.create_empty(RUN_ID)
        run.series_id, run.fab_hash = SERIES_ID, BUNDLE_HASH
        run.fab_id, run.fab_version = "gmmas/bundle", "1.0.0"
        self.state.store_run(run)
        self.state.store_fab(Fab(BUNDLE_HASH, POISONED_BUNDLE, {}))
        context = Context(run_id=RUN_ID, node_id=NODE_ID, node_config={}, state=RecordDict(), run_config={}, series_id=SERIES_ID)
        self.state.set_run_series_context(SERIES_ID, context)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, 1, 1  # who writes a message is global in Flower
        message = Message(content, NODE_ID, message_type)
        _insert_message(message, self.state, self.factory.objectstore_factory.store())
        assert self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=RUN_ID, fab_hash=BUNDLE_HASH) is not None
        return message

    def replies(self) -> list[Message]:
        """Return the replies handed over since the last call, without their content (errors are part of the envelope)."""
        return list(self.state.get_messages_legacy(is_reply=True))

    def wait_for_reply(self) -> Message:
        found: list[Message] = []
        wait_until(lambda: bool(found.extend(self.replies()) or found), what="a reply")
        return found[0]

    def wait_for_end_of_task(self) -> None:
        """A reply is announced before its content has come; a finished task has handed over everything."""
        wait_until(lambda: all(task.status.status == "finished" for task in self.state.get_tasks()), what="end of the task")

    def stored_bytes(self) -> bytes:
        """Return everything in the object store: contents of messages as they would travel."""
        store = self.factory.objectstore_factory.store()
        return b"".join(entry.content for entry in store.store.values())
