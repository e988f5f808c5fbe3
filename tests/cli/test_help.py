"""Every command has help and is documented, and every error has an exit code."""

import click
import pytest
from click.testing import CliRunner

from semel import errors
from semel.cli import COMMANDS, EXIT_CODES, exit_code, main
from tests.cli.commands import ROOT


def every_command(group=main, path=("semel",)):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*path, name))


@pytest.mark.parametrize(
    ("path", "command"), list(every_command()), ids=lambda part: " ".join(part) if isinstance(part, tuple) else ""
)
def test_every_command_has_help_and_is_documented(path, command):
    assert command.help and len(command.help.split()) >= 3
    answer = CliRunner().invoke(main, [*path[1:], "--help"])
    assert (answer.exit_code, answer.stderr) == (0, "")
    documented = (ROOT / "docs" / "cli.md").read_text()
    assert f"`{' '.join(path)}" in documented
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name != "wants_help":
            assert parameter.help, parameter.name
            assert any(f"`{option}" in documented for option in parameter.opts), parameter.opts


def test_the_root_lists_every_command():
    answer = CliRunner().invoke(main, ["--help"])
    assert all(name in answer.stdout for name in COMMANDS)
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2


def test_every_exit_code_is_documented():
    documented = (ROOT / "docs" / "cli.md").read_text()
    for code in {0, 130, *(code for _, code in EXIT_CODES)}:
        assert f"| {code} |" in documented


def test_every_error_has_an_exit_code():
    for found in vars(errors).values():
        if isinstance(found, type) and issubclass(found, errors.SemelError):
            assert exit_code(found.__new__(found)) in {1, 2, 3, 4, 6, 7}


def test_demo_outside_a_checkout_says_what_to_do(semel_command, tmp_path, monkeypatch):
    monkeypatch.setattr("semel.cli.demo.checkout", lambda: None)
    answer = semel_command("demo")
    assert answer.exit_code == 3
    assert "make demo" in answer.stderr


def test_demo_hands_its_arguments_on(semel_command, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "semel.cli.demo.import_module",
        lambda name: type("Demo", (), {"main": staticmethod(lambda argv: seen.append(argv) or 1)}),
    )
    answer = semel_command("demo", "--orders", "x.jsonl", "--quick")
    assert (answer.exit_code, seen) == (1, [["--orders", "x.jsonl", "--quick"]])
