"""Claims about the command line: clear, early, and one line when something is wrong."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from vicarious import cli, store
from vicarious.cli import app
from vicarious.paper import chapters, studies


def run(*words, **env):
    return CliRunner().invoke(app, words, env=env)


@pytest.mark.parametrize("command", [(), ("study",), ("publish",), ("book",), ("verdicts",)])
def test_help_is_worth_reading(command):
    shown = run(*command, "--help")
    assert shown.exit_code == 0 and len(shown.output) > 200


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ("--only", "04-misgeneralisation", "-p", "similarty", "0.7"),
            ["similarty", "did you mean 'similarity'", "head_width"],
        ),
        (
            ("--only", "04-misgeneralisation", "-p", "similarity", "1.7"),
            ["similarity=1.7", "less than or equal to 1", "seeds"],
        ),
        (("--only", "04-misgeneralisation", "-p", "seeds", "two"), ["seeds=two", "valid integer", "from 1 to 1000"]),
        (("--only", "04-misgeneralisation", "-p", "profile", "large"), ["profile=large", "paper or quick"]),
        (("--only", "04-misgeneralization"), ["did you mean '04-misgeneralisation'", "03-similarity"]),
        (("-p", "compny", "0.7"), ["did you mean 'company'"]),
        (("--in-place", "-p", "seeds", "2"), ["leave out -p"]),
    ],
)
def test_bad_parameters_stop_before_anything_runs(words, named, tmp_path, monkeypatch):
    monkeypatch.setattr("vicarious.paper.book.stage", lambda *a: pytest.fail("something ran"))
    monkeypatch.setattr("vicarious.execute.fill", lambda *a, **k: pytest.fail("something ran"))
    shown = run("book", *words, "--out", str(tmp_path / "out"))
    assert shown.exit_code == 2 and all(word in shown.output for word in named), shown.output
    assert len(shown.output.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("- seeds", ["must map parameters to values"]),
        ("03-similarity: 5", ["must map parameters to values", "03-similarity is a chapter"]),
        ("{", ["cannot be read as YAML"]),
        ("", ["must map parameters to values"]),
        ("seeds: [1, 2]", ["values are text or numbers"]),
        ("03-similarty: {seeds: 2}", ["did you mean '03-similarity'"]),
        ("03-similarity: {seed: 2}", ["did you mean 'seeds'"]),
        ("03-similarity: {seeds: 0}", ["seeds=0", "greater than or equal to 1"]),
        ("seeds: 0", ["seeds=0"]),
    ],
)
def test_a_bad_parameter_file_is_one_line_before_anything_runs(text, named, tmp_path, monkeypatch):
    monkeypatch.setattr("vicarious.paper.book.stage", lambda *a: pytest.fail("something ran"))
    (tmp_path / "variant.yml").write_text(text)
    shown = run("book", "--file", str(tmp_path / "variant.yml"), "--out", str(tmp_path / "out"))
    assert shown.exit_code == 2 and all(word in shown.output for word in named), shown.output
    assert len(shown.output.strip().splitlines()) == 1 and not (tmp_path / "out").exists()


def test_a_parameter_file_says_what_to_execute_and_with_what(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("vicarious.paper.book.render", lambda out, *rest: asked.update(rest=rest[:3]) or out)
    file = tmp_path / "variant.yml"
    for text, words, expected in (
        ("03-similarity: {seeds: 5}", (), (["03-similarity"], {}, {"03-similarity": {"seeds": "5"}})),
        (
            "seeds: 5\n04-misgeneralisation: {company: 0.1}",
            (),
            ([], {"seeds": "5"}, {"04-misgeneralisation": {"company": "0.1"}}),
        ),
        ("seeds: 5", ("-p", "seeds", "6"), ([], {"seeds": "6"}, {})),
    ):
        file.write_text(text)
        assert run("book", "-f", str(file), *words, "--out", str(tmp_path / "out")).exit_code == 0
        assert asked["rest"] == expected


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "mine.txt").write_text("mine")
    shown = run("book", "--only", "verdicts", "-p", "seeds", "2", "--out", str(tmp_path))
    assert shown.exit_code == 2 and "holds other things" in shown.output
    assert (tmp_path / "source" / "mine.txt").read_text() == "mine"


def test_an_unknown_device_is_one_line():
    shown = run("study", "--device", "gpu")
    assert shown.exit_code == 2 and "auto, cpu, cuda or cuda:N" in shown.output


def test_cuda_without_a_gpu_is_one_line(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    shown = run("study", "--device", "cuda")
    assert shown.exit_code == 2 and "no CUDA device" in shown.output and len(shown.output.strip().splitlines()) == 1


@pytest.mark.parametrize("words", ["verdicts", "verdicts --json", "book", "book --only 03-similarity", "audit"])
def test_away_from_the_repository_it_is_said_where_was_looked_and_how_to_say_otherwise(words, tmp_path):
    shown = run(*words.split(), VICARIOUS_HOME=str(tmp_path), VICARIOUS_RUNS=str(tmp_path / "runs"))
    assert shown.exit_code == 2 and len(shown.output.strip().splitlines()) == 1
    assert str(tmp_path) in shown.output and "set VICARIOUS_HOME" in shown.output


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"VICARIOUS_RUNS": __file__}, ["is no folder: set VICARIOUS_RUNS to one"]),
        ({"VICARIOUS_HOME": "/nowhere"}, ["VICARIOUS_HOME=/nowhere is no folder: set it to a checkout"]),
    ],
)
def test_a_setting_that_is_no_folder_is_named(given, named):
    shown = run("study", "reference", "--plan", **given)
    assert shown.exit_code == 2 and all(text in shown.output for text in named)
    assert len(shown.output.strip().splitlines()) == 1


def test_who_stops_what_stores_nothing_is_not_told_that_it_goes_on(monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("vicarious.paper.studies.reference", stopped)
    shown = run("audit")
    assert shown.exit_code == 130 and shown.output.strip() == "vicarious: stopped"


def test_without_the_packages_of_an_extra_it_is_said_which():
    code = "import sys; sys.modules['nbformat'] = None; from vicarious.cli import app; app(['verdicts'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'vicarious[book,outsiders]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_every_study_can_be_asked_for_by_name():
    assert cli.STUDIES == tuple(studies.STUDIES), "written out there, so that --help need not import torch"


def test_published_verdicts_are_live():
    rows = {r["id"]: r for r in json.loads(run("verdicts", "--json").output)}
    live = {p.id for p in chapters.PREDICTIONS if p.live}
    assert {name for name, row in rows.items() if row["verdict"] != "pending"} == live
    count = studies.PROFILES["paper"].sweep
    assert all(rows[name]["n"] + len(rows[name]["excluded"]) >= count for name in live)


def test_a_corrupt_result_ends_in_one_line(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "SHA256SUMS").write_text("{")
    (tmp_path / "pyproject.toml").write_text("")
    shown = run("verdicts", VICARIOUS_HOME=str(tmp_path))
    assert shown.exit_code == 1 and "SHA256SUMS" in shown.output and len(shown.output.strip().splitlines()) == 1


def test_publishing_an_incomplete_study_is_refused(tmp_path):
    shown = run("publish", VICARIOUS_HOME=str(tmp_path), VICARIOUS_RUNS=str(tmp_path / "runs"))
    assert shown.exit_code == 2 and "run `vicarious study` first" in shown.output


def test_every_parameter_is_listed_with_its_range():
    shown = run("book", "--parameters").output
    for chapter, model in chapters.CHAPTERS.items():
        assert chapter in shown and all(name in shown for name in model.model_fields)


def test_commits_come_from_the_repository():
    head = subprocess.run(
        ["git", "-C", str(store.home()), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True
    )
    assert store.commit().rstrip("+") == (head.stdout.strip() or "unknown")
