"""Groups and their VEs as values, and a world in which the steps of a group are done at once."""

import msgspec

from kit.world import make_ve
from veapi.model import (
    Digest,
    Group,
    GroupStatus,
    Revision,
    Run,
    Template,
    VEState,
)
from vecontroller.groups.member import Member, own_spec
from vecontroller.groups.steps import Change, Make, Remove, next_steps

IMAGE = Digest("sha256:" + "d" * 64)


def revision(number: int, **fields) -> Revision:
    spec = msgspec.structs.replace(make_ve("any").spec, ip="", host="", **fields)
    return Revision(
        number=number,
        template=Template(labels={"app": "web"}, spec=spec),
        image_digest=IMAGE,
        created_at=1.0,
        cause="apply",
    )


def group_of(replicas: int, **fields) -> Group:
    return Group(
        uid="g1",
        name="web",
        project="default",
        labels={},
        generation=1,
        replicas=replicas,
        revisions=(revision(1),),
        created_at=1.0,
        **fields,
    )


def templated(group: Group, **fields) -> Group:
    """With one more revision."""
    number = group.current.number + 1
    return msgspec.structs.replace(group, revisions=(*group.revisions, revision(number, **fields)))


def status_of(group: Group, **fields) -> GroupStatus:
    return GroupStatus(uid=group.uid, **fields)


def member(
    group: Group,
    ordinal: int,
    *,
    number: int = 0,
    up: bool = True,
    leaving: bool = False,
    run: Run = Run.RUNNING,
) -> Member:
    """Of the current revision, unless another is given."""
    chosen = next((each for each in group.revisions if each.number == number), group.current)
    ve = make_ve(f"uid-{ordinal}", name=f"{group.name}-{ordinal}")
    ve = msgspec.structs.replace(
        ve,
        labels=chosen.template.labels,
        spec=msgspec.structs.replace(chosen.template.spec, run=run),
        group=group.name,
        group_revision=chosen.number,
        delete_requested_at=5.0 if leaving else None,
    )
    return Member(
        ordinal=ordinal,
        ve=ve,
        available=up and not leaving,
        state=VEState.RUNNING if up else VEState.FAILED,
        reason="" if up else "Failed",
        why="" if up else "Failed: it does not run",
    )


class World:
    """VEs that are made, changed and removed as the steps say; each is unavailable at first."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self._members: dict[int, Member] = {}

    @property
    def members(self) -> list[Member]:
        return [self._members[ordinal] for ordinal in sorted(self._members)]

    @property
    def available(self) -> int:
        return sum(each.available for each in self.members if each.ordinal < self.group.replicas)

    def wish(self, what: str, number: int) -> None:
        match what:
            case "scale":
                self.group = msgspec.structs.replace(self.group, replicas=number)
            case "template":
                self.group = templated(self.group, pids=100 + number)
            case "down" if number in self._members:
                self._set(number, available=False)
            case "lost":
                self._members.pop(number, None)
            case "steps":
                for _ in range(number):
                    self.act()
                    self.recover_some()

    def act(self) -> bool:
        """Whether there was anything to do."""
        steps = next_steps(self.group, status_of(self.group), self.members)
        for step in steps:
            match step:
                case Make():
                    self._members[step.ordinal] = member(self.group, step.ordinal, up=False)
                case Remove():
                    del self._members[step.ordinal]
                case Change():
                    self._change(step)
        return bool(steps)

    def recover_some(self) -> None:
        for ordinal in list(self._members)[::2]:
            self._set(ordinal, available=True)

    def recover_all(self) -> None:
        for ordinal in self._members:
            self._set(ordinal, available=True)

    def settle(self) -> None:
        while self.act():
            self.recover_all()
        self.recover_all()

    def _set(self, ordinal: int, *, available: bool) -> None:
        before = self._members[ordinal]
        self._members[ordinal] = msgspec.structs.replace(before, available=available)

    def _change(self, step: Change) -> None:
        before = self._members[step.ordinal]
        assert before.uid == step.uid
        chosen = next(each for each in self.group.revisions if each.number == step.revision)
        spec = own_spec(before.ve, chosen.template)
        same = spec == before.ve.spec
        ve = msgspec.structs.replace(before.ve, spec=spec, group_revision=step.revision)
        self._members[step.ordinal] = msgspec.structs.replace(
            before, ve=ve, available=before.available and same
        )
