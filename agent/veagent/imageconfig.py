"""What a VE runs, of what its image says and what was asked of it: pure."""

from dataclasses import replace

from veagent.ports import StartPlan
from veapi.model import ImageConfig


def with_image(plan: StartPlan, config: ImageConfig) -> StartPlan:
    """The plan, which has what was asked, over the image's config. Its user and folder are the image's.

    An image that names no command boots /sbin/init, whatever user it names.
    """
    return replace(
        plan,
        environment={**config.env, **plan.environment},
        command=plan.command or config.command,
        user=plan.user or config.user,
        cwd=plan.cwd or config.cwd,
    )
