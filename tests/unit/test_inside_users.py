import pytest

from veagent.inside.attach import PATH, Task, command_of, environment
from veagent.inside.users import NoSuchUser, User, find_user

PASSWD = [
    "root:x:0:0:root:/root:/bin/bash",
    "alice:x:1000:1000:Alice:/home/alice:/bin/zsh",
    "bob:x:1001:100::/home/bob:",
    "1000x:x:7:7::/:/bin/sh",
    "42:x:4242:4242::/answers:/bin/sh",
    "far:x:70000:7::/:/bin/sh",
    "broken:x:seven:7::/:/bin/sh",
    f"zeros:x:{'0' * 25}99999:7::/:/bin/sh",
    "short:x",
    "",
]
GROUP = [
    "root:x:0:",
    "adm:x:4:alice,bob",
    "sudo:x:27:alice",
    "alice:x:1000:",
    "users:x:100:",
    "far:x:70000:alice",
    f"farther:x:{'9' * 5000}:alice",
]


@pytest.mark.parametrize(
    ("wanted", "uid", "groups", "home"),
    [
        ("", 0, (0,), "/root"),
        ("root", 0, (0,), "/root"),
        ("0", 0, (0,), "/root"),
        ("alice", 1000, (1000, 4, 27), "/home/alice"),
        ("1000", 1000, (1000, 4, 27), "/home/alice"),
        ("bob", 1001, (100, 4), "/home/bob"),
        ("alice:adm", 1000, (4,), "/home/alice"),
        ("alice:33", 1000, (33,), "/home/alice"),
        ("1234", 1234, (1234,), "/"),
        ("1234:users", 1234, (100,), "/"),
        ("42", 4242, (4242,), "/answers"),
        ("65535", 65535, (65535,), "/"),
    ],
)
def test_a_user_is_found_by_name_or_number(wanted, uid, groups, home) -> None:
    user = find_user(wanted, PASSWD, GROUP)
    assert (user.uid, user.groups, user.home, user.gid) == (uid, groups, home, groups[0])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("nobody", "no user nobody"),
        ("alice:nogroup", "no group nogroup"),
        ("65536", "beyond"),
        ("99999999999999999999999", "beyond"),
        ("far", "beyond"),
        ("alice:far", "beyond"),
        ("broken", "beyond"),
        ("short", "no user"),
        ("9" * 5000, "beyond"),
        ("0" * 25 + "65536", "beyond"),
        ("zeros", "beyond"),
        ("alice:" + "9" * 5000, "beyond"),
        ("x" * 5000, "no user"),
        ("alice:", "no group"),
        ("\N{SUPERSCRIPT TWO}", "no user"),
    ],
)
def test_what_is_no_user_is_said(wanted: str, words: str) -> None:
    with pytest.raises(NoSuchUser, match=words):
        find_user(wanted, PASSWD, GROUP)


def test_root_needs_no_files() -> None:
    user = find_user("", [], [])
    assert (user.uid, user.gid, user.home, user.name) == (0, 0, "/root", "root")


def task(*command: str, tty: bool = False, env: tuple[str, ...] = ()) -> Task:
    return Task(
        lxc_path="/l", ve="u", trouble_fd=3, tty=tty, user="", cwd="", env=env, command=command
    )


ALICE = find_user("alice", PASSWD, GROUP)


def test_what_was_asked_goes_over_what_the_ve_has_over_what_a_user_needs() -> None:
    found = environment(ALICE, task("x", env=("A=asked",)), {"A": "ve", "B": "ve", "HOME": "/root"})
    assert found == {
        "A": "asked",
        "B": "ve",
        "HOME": "/home/alice",
        "LOGNAME": "alice",
        "PATH": PATH,
        "USER": "alice",
    }
    assert environment(ALICE, task("x", tty=True), {})["TERM"] == "xterm"
    assert environment(ALICE, task(), {})["SHELL"] == "/bin/zsh"


@pytest.mark.parametrize(
    ("shell", "works", "expected"),
    [
        ("/bin/zsh", True, ("/bin/zsh", ["-zsh"])),
        ("/bin/zsh", False, ("/bin/sh", ["-sh"])),
        ("", True, ("/bin/sh", ["-sh"])),
    ],
)
def test_a_login_shell_is_the_users_or_sh(shell: str, works, expected) -> None:
    user = User(uid=1, gid=1, name="a", home="/", shell=shell, groups=(1,))
    assert command_of(user, task(), shell_works=lambda _: works) == expected


def test_a_command_is_taken_as_it_is() -> None:
    assert command_of(ALICE, task("-x", "y"), shell_works=lambda _: True) == ("-x", ["-x", "y"])
