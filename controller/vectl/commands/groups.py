"""The groups of commands: cluster, group, host, image, orphan, project, snapshot."""

from vectl.lazy import Entry, LazyGroup

_ALIASES = {"ls": "list", "rm": "delete"}

host = LazyGroup(
    "host",
    entries={
        "list": Entry("vectl.commands.host:list_", "Hosts, what they have and what is committed."),
        "show": Entry("vectl.commands.host:show", "All about one host."),
        "taint": Entry("vectl.commands.taint:taint", "Say what VEs must tolerate to get on it."),
        "cordon": Entry("vectl.commands.hostlife:cordon", "Put no new VEs on it."),
        "uncordon": Entry("vectl.commands.hostlife:uncordon", "Put new VEs on it again."),
        "remove": Entry("vectl.commands.hostlife:remove", "Take it out of the cluster."),
        "add": Entry("vectl.commands.hostlife:add", "Let one that was removed come again."),
        "fence": Entry("vectl.commands.hostlife:fence", "Vouch that it is off."),
        "unfence": Entry("vectl.commands.hostlife:unfence", "Take that back."),
        "replace": Entry("vectl.commands.hostlife:replace", "Let another machine be it."),
        "resume-moves": Entry(
            "vectl.commands.hostlife:resume_moves", "Go on moving VEs from silent hosts."
        ),
    },
    aliases={"ls": "list", "rm": "remove"},
    help="Hosts.",
)
cluster = LazyGroup(
    "cluster",
    entries={
        "status": Entry("vectl.commands.cluster:status", "Who leads, and what is armed."),
        "disarm": Entry("vectl.commands.cluster:disarm", "Fence and move nothing for a while."),
        "arm": Entry("vectl.commands.cluster:arm", "End that."),
        "confirm": Entry("vectl.commands.confirm:confirm", "Let a restored store count."),
        "backup": Entry("vectl.commands.backup:backup", "All that its store holds, in a file."),
        "verify": Entry("vectl.commands.backup:verify_", "Whether a backup is whole."),
    },
    aliases={},
    help="The cluster as a whole.",
)
image = LazyGroup(
    "image",
    entries={
        "import": Entry(
            "vectl.commands.image:import_", "Upload a root file system or an OCI layout."
        ),
        "pull": Entry("vectl.commands.image:pull", "Get an image from a registry."),
        "prefetch": Entry(
            "vectl.commands.image:prefetch", "Have hosts hold an image before a VE needs it."
        ),
        "list": Entry("vectl.commands.image:list_", "Images and where they are."),
        "show": Entry("vectl.commands.image:show", "All about one image."),
        "delete": Entry("vectl.commands.image:delete", "Delete images."),
    },
    aliases=_ALIASES,
    help="Images.",
)
project = LazyGroup(
    "project",
    entries={
        "create": Entry("vectl.commands.project:create", "Make a project."),
        "delete": Entry("vectl.commands.project:delete", "Delete one that is empty."),
        "list": Entry("vectl.commands.project:list_", "Projects."),
        "set": Entry("vectl.commands.projectquota:set_", "Say what a project may have."),
        "show": Entry("vectl.commands.projectquota:show", "What a project has and may have."),
    },
    aliases=_ALIASES,
    help="Projects: spaces of names for VEs.",
)
rollout = LazyGroup(
    "rollout",
    entries={
        "status": Entry("vectl.commands.grouprollout:status", "Wait until it is over."),
        "pause": Entry("vectl.commands.grouprollout:pause", "Change no VE until resume."),
        "resume": Entry("vectl.commands.grouprollout:resume", "Go on, or try again."),
        "undo": Entry("vectl.commands.grouprollout:undo", "Back to an earlier template."),
        "history": Entry("vectl.commands.grouprollout:history", "Templates that it had."),
    },
    aliases={},
    help="How a changed template gets to the VEs of a group.",
)
group = LazyGroup(
    "group",
    entries={
        "list": Entry("vectl.commands.group:list_", "Groups and how far they are."),
        "show": Entry("vectl.commands.group:show", "All about one group."),
        "scale": Entry("vectl.commands.group:scale", "Change how many VEs there are."),
        "rollout": Entry("vectl.commands.groups:rollout", "Status, pause, resume, undo, history."),
        "delete": Entry("vectl.commands.group:delete", "Delete a group with its VEs."),
    },
    aliases=_ALIASES,
    help="Groups: so many VEs of one template, made by `vectl apply` of a kind: Group.",
)
orphan = LazyGroup(
    "orphan",
    entries={
        "list": Entry("vectl.commands.orphan:list_", "Orphans and where they are."),
        "adopt": Entry("vectl.commands.orphan:adopt", "Make an orphan a VE again."),
        "purge": Entry("vectl.commands.orphan:purge", "Remove an orphan for good."),
    },
    aliases=_ALIASES,
    help="Orphans: what hosts have and nobody asks for. They are kept until somebody decides.",
)
snapshot = LazyGroup(
    "snapshot",
    entries={
        "take": Entry("vectl.commands.snapshot:take", "Take one; the word may be left out."),
        "list": Entry("vectl.commands.snapshot:list_", "Snapshots of a VE."),
        "delete": Entry("vectl.commands.snapshot:delete", "Delete snapshots."),
    },
    aliases=_ALIASES,
    fallback="take",
    help="Snapshots of a VE's root: `vectl snapshot NAME [TAG]` takes one.",
)
