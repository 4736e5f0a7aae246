"""Takes the commands in a sweep's folder while it runs: each once, with a receipt, and off the hot path."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from raymae.errors import RayMAEError, on_a_screen
from raymae.results.store.commands import MAX_TEXT, AddPoint, Command, CommandFolder, Listed, Receipt, StopTrial, now
from raymae.search.background import repeatedly
from raymae.search.decide.by_hand import Answer
from raymae.spec.points import problems_of, refusal

if TYPE_CHECKING:
    from raymae.search.decide.conductor import Conductor
    from raymae.spec.task import TaskSchema

EVERY_S = 3.0
MOST_AT_ONCE = 100  # commands of one look


class Desk:
    """Hands commands to a conductor, and writes what becomes of them.

    A command that was taken and whose receipt the storage refuses is not taken again; the receipt is written later.

    Args:
        conductor: Of the sweep.
        schema: Its task, with the sweep's own arms.
        folder: Its commands.
    """

    def __init__(self, conductor: Conductor, schema: TaskSchema, folder: CommandFolder) -> None:
        self._conductor, self._schema, self._folder = conductor, schema, folder
        self._known: set[str] = set()
        self._unsent: dict[str, Receipt] = {}
        self._is_refused = False  # by the storage, at the last look

    def open(self) -> None:
        """Go on with what an earlier run of the sweep has taken, and refuse what nobody took in time."""
        listed = self._listed()
        for name in listed.answered:
            try:
                receipt = self._folder.receipt(name)
                if receipt is not None and receipt.status == "applied":
                    self._goes_on(name, self._folder.read(name))
            except (OSError, RayMAEError) as error:
                self._conductor.warn(f"a command of before cannot be read, and is left out: {error}")
        for name in listed.waiting:
            self._known.add(name)
            if self._conductor.by_hand.is_tried(name):
                self._answer(name, Answer("applied", "it was tried in an earlier run of the sweep"))
            else:
                self._answer(name, Answer("refused", "no run of the sweep took it in time; give it again"))

    def _goes_on(self, name: str, command: Command) -> None:
        by_hand = self._conductor.by_hand
        if isinstance(command, StopTrial):
            by_hand.stops_still(command.trial_id, command.by)
        else:
            by_hand.adds_still(name, command.point, command.arm, command.by)

    def look(self) -> None:
        """Take what is new; raises nothing, since it runs in a thread of its own."""
        for name, receipt in list(self._unsent.items()):
            self._send(name, receipt)
        listed = self._listed()
        for file in listed.foreign:
            if file not in self._known:
                self._known.add(file)
                self._conductor.warn(f"commands/{file} is no command, and is left alone: `raymae stop-trial` and "
                                     "`raymae add` write them")
        new = [name for name in listed.waiting if name not in self._known]
        for name in new[:MOST_AT_ONCE]:
            self._take(name)

    def close(self) -> None:
        """Refuse what comes too late, and say which points were taken and not tried."""
        for name in [name for name in self._listed().waiting if name not in self._known]:
            self._known.add(name)
            self._answer(name, Answer("refused", "the sweep had ended"))
        for name, receipt in list(self._unsent.items()):
            self._send(name, receipt)
        if untried := self._conductor.by_hand.untried():
            self._conductor.warn(f"added and not tried, since the search ended before: {'; '.join(untried)}. "
                                 "`raymae extend` would begin with it")

    # -- one command ---------------------------------------------------------------------------------------------------

    def _take(self, name: str) -> None:
        try:
            command = self._folder.read(name)
        except OSError:  # it may be there at the next look
            return
        except RayMAEError as error:
            self._known.add(name)
            self._conductor.warn(f"set aside: {error}")
            self._answer(name, Answer("refused", str(error)))
            return
        self._known.add(name)
        answer = self._done(name, command)
        said = answer.text if answer.status == "applied" else f"refused: {answer.text}"
        self._conductor.by_hand.log.append(f"{command.told}: {said}")
        self._conductor.warn(f"by hand ({command.by}): {said}")
        self._answer(name, answer)

    def _done(self, name: str, command: Command) -> Answer:
        if self._conductor.is_over():
            return Answer("refused", "the sweep is ending: it was interrupted, or its budget is spent")
        if isinstance(command, StopTrial):
            return self._conductor.by_hand.stop(command.trial_id, command.by)
        if wrong := self._wrong(command):
            return Answer("refused", wrong)
        return self._conductor.by_hand.add(name, command.point, command.arm, command.by)

    def _wrong(self, command: AddPoint) -> str:
        """What is wrong with a point, whenever it came; "" for one that can be tried."""
        if problems := problems_of(command.point, command.arm, self._conductor.spec):
            return "; ".join(problems)
        for plan in list(self._conductor.plans.values()):
            if plan.home != plan.lane or command.arm not in (None, plan.name):
                continue
            own = {name: value for name, value in command.point.items() if name in plan.space}
            if command.arm is not None and len(own) < len(command.point):
                missing = ", ".join(name for name in command.point if name not in own)
                return f"the arm {plan.name} does not search {missing}; leave it out"
            if own and (reason := refusal(plan, self._schema, own)):
                return reason
        return ""

    # -- the folder ----------------------------------------------------------------------------------------------------

    def _listed(self) -> Listed:
        try:
            listed = self._folder.look()
        except OSError as error:
            if not self._is_refused:
                self._conductor.warn(f"commands cannot be listed, and are looked for again: {error}")
            self._is_refused = True
            return Listed()
        self._is_refused = False
        return listed

    def _answer(self, name: str, answer: Answer) -> None:
        self._send(name, Receipt(status=answer.status, text=on_a_screen(answer.text)[:MAX_TEXT], at=now()))

    def _send(self, name: str, receipt: Receipt) -> None:
        try:
            self._folder.answer(name, receipt)
        except OSError:
            self._unsent[name] = receipt
        else:
            self._unsent.pop(name, None)


@contextmanager
def obeying(conductor: Conductor, schema: TaskSchema, every_s: float = EVERY_S) -> Iterator[None]:
    """Let a conductor take commands for the length of a `with` block.

    Args:
        conductor: Whose sweep; it knows what an earlier run of it has left.
        schema: Its task.
        every_s: Seconds between two looks.
    """
    desk = Desk(conductor, schema, CommandFolder(conductor.store.location))
    desk.open()
    try:
        with repeatedly(desk.look, every_s, "commands"):
            yield
    finally:
        desk.close()
