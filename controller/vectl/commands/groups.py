"""The groups: host, image, project."""

from vectl.lazy import Entry, LazyGroup

_ALIASES = {"ls": "list", "rm": "delete"}

host = LazyGroup(
    "host",
    entries={
        "list": Entry("vectl.commands.host:list_", "Hosts, what they have and what is committed."),
        "show": Entry("vectl.commands.host:show", "All about one host."),
    },
    aliases=_ALIASES,
    help="Hosts.",
)
image = LazyGroup(
    "image",
    entries={
        "import": Entry("vectl.commands.image:import_", "Upload a root file system."),
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
        "list": Entry("vectl.commands.project:list_", "Projects."),
    },
    aliases=_ALIASES,
    help="Projects: spaces of names for VEs.",
)
