"""benchmarks/gpu.sh: what it divides, keeps, plans and concludes; the measuring itself needs the machine."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from gpu.cli import size_bytes  # noqa: E402
from gpu.plan import FULL, GRPC, IN_PROCESS, MEMORY, QUICK, SATURATION, Budget, Variant, cells, steps, variants  # noqa: E402
from gpu.process import TaskFailed  # noqa: E402
from gpu.state import State, fingerprint  # noqa: E402

from gpu import environment, goals, parts, process, report, suite, wheels  # noqa: E402

KIB = 1 << 10


def gpu_sh(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = [str(BENCHMARKS / "gpu.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def cell(*, memory=0.95, grpc=0.8, overhead_ms=0.3, batch=64, rounds=3):
    speed = [1000.0 + 10 * number for number in range(rounds)]
    return {
        "batch": batch,
        "inflight": {IN_PROCESS: 1, MEMORY: 4, GRPC: 8},
        "max_difference": 0.0,
        "ways": {
            IN_PROCESS: {"rows_per_s": speed, "p50_ms": [1.0] * rounds, "client_cpu": [0.5] * rounds},
            MEMORY: {
                "rows_per_s": [memory * each for each in speed],
                "p50_ms": [1.0 + overhead_ms] * rounds,
                "client_cpu": [0.1] * rounds,
            },
            GRPC: {
                "rows_per_s": [grpc * each for each in speed],
                "p50_ms": [2.0] * rounds,
                "client_cpu": [0.9] * rounds,
            },
        },
    }


def saturation(*, utilisation=0.97, client_cpu=0.2, moving=0.05):
    return {
        "batch": 64,
        "sweep": [{"inflight": 1, "rows_per_s": 900.0}, {"inflight": 4, "rows_per_s": 1000.0}],
        "inflight": 4,
        "rows_per_s": 1000.0,
        "in_process_rows_per_s": 1050.0,
        "client_cpu": client_cpu,
        "server_time": {
            "queue": 0.5,
            "compute_input": moving / 4,
            "compute_infer": 0.5 - moving / 2,
            "compute_output": moving / 4,
        },
        "gpu": None
        if utilisation is None
        else {"utilisation": utilisation, "power_w": 500.0, "memory_bytes": 1 << 32, "sm_clock_mhz": 1980},
    }


MACHINE = {
    "device": "cuda",
    "gpu": "NVIDIA H200",
    "memory_bytes": 139 << 30,
    "driver": "580.1",
    "cuda": "13.0",
    "cpu": "a processor",
    "cores": 16,
    "python": "3.12.3",
    "versions": {"naiad": "0.1.0", "torch": "2.11.0"},
    "runtimes": {"onnxruntime": "built without CUDA (CPUExecutionProvider)", "aoti": None},
    "ceilings": {"copy_gb_per_s": 4300.0, "bf16_matmul_tflop_per_s": 780.0},
}
TESTS = {"passed": 9, "failed": 0, "skipped": 1, "failures": [], "skip_reasons": ["one GPU only"]}


def found(entries, machine=MACHINE, tests=TESTS, scale=FULL):
    return report.assemble(
        machine=machine,
        scale=scale,
        tests=tests,
        entry=lambda name, variant: entries.get(name),
        command="benchmarks/gpu.sh",
    )


def all_done():
    entries = {}
    for variant in variants(["aoti"]):
        entries[f"model {variant.name}"] = {"status": "done", "result": {}}
        for batch in FULL.batches:
            entries[f"cell {variant.name} batch {batch}"] = {"status": "done", "result": cell(batch=batch)}
        entries[f"cell {variant.name} {SATURATION}"] = {"status": "done", "result": saturation()}
    return entries


class TestParts:
    def test_no_part_is_larger_than_asked_and_every_byte_is_in_one_place(self):
        """Whatever the sizes: the manifest is counted, and large files are cut without gaps or overlaps."""
        rng = random.Random(7)
        for _ in range(50):
            sizes = {f"f{number}": rng.choice([0, 1, rng.randrange(1 << 22)]) for number in range(rng.randrange(1, 30))}
            size = rng.randrange(100 * KIB, 1 << 20)
            divided = parts.divide(sizes, size)
            assert all(sum(piece.size for piece in part) <= size - 64 * KIB for part in divided)
            for name, length in sizes.items():
                pieces = sorted((p for part in divided for p in part if p.file == name), key=lambda p: p.offset)
                ends = [piece.offset + piece.size for piece in pieces]
                assert [piece.offset for piece in pieces] == [0, *ends[:-1]]
                assert ends[-1] == length

    def test_a_part_size_without_room_is_refused(self):
        with pytest.raises(ValueError, match="above 65536 bytes, found 1000"):
            parts.divide({"f": 1}, 1000)

    @pytest.fixture
    def carried(self, tmp_path):
        """Three parts of two files, one of which is larger than a part; in a folder with a space."""
        files = {}
        for name, size in {"large.whl": 300 * KIB, "small.whl": 10 * KIB}.items():
            path = tmp_path / "from" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(random.Random(name).randbytes(size))
            files[path] = "install"
        folder = tmp_path / "carry on"
        written = parts.write(files, folder, 192 * KIB)
        assert [path.name for path in written] == ["part-1", "part-2", "part-3"]
        assert all(sum(f.stat().st_size for f in path.iterdir()) <= 192 * KIB for path in written)
        return files, folder

    def test_what_is_joined_is_what_was_divided(self, carried, tmp_path):
        files, folder = carried
        manifest = parts.join(folder, tmp_path / "to")
        assert {entry["name"]: entry["role"] for entry in manifest["files"]} == {p.name: "install" for p in files}
        for path in files:
            assert (tmp_path / "to" / path.name).read_bytes() == path.read_bytes()

    def test_parts_that_were_left_behind_are_named(self, carried, tmp_path):
        _, folder = carried
        for piece in (folder / "part-2").iterdir():
            piece.unlink()
        with pytest.raises(parts.PartsError, match="part-2 missing"):
            parts.join(folder, tmp_path / "to")

    def test_files_that_are_joined_already_need_no_parts(self, carried, tmp_path):
        """The parts come in several transfers, and may be deleted once the environment has them."""
        _, folder = carried
        parts.join(folder, tmp_path / "to")
        for piece in (folder / "part-1").glob("*.whl*"):
            piece.unlink()
        parts.join(folder, tmp_path / "to")

    def test_a_part_that_was_changed_on_the_way_is_noticed(self, carried, tmp_path):
        _, folder = carried
        piece = next((folder / "part-1").glob("large*"))
        data = bytearray(piece.read_bytes())
        data[100] ^= 1
        piece.write_bytes(data)
        with pytest.raises(parts.PartsError, match=r"expected large\.whl with SHA-256 \w+, found \w+; carry it anew"):
            parts.join(folder, tmp_path / "to")
        assert not (tmp_path / "to" / "large.whl").exists()

    def test_parts_of_two_collections_are_not_mixed(self, carried):
        _, folder = carried
        manifest = folder / "part-3" / parts.MANIFEST
        manifest.write_text(manifest.read_text().replace("small", "other"))
        with pytest.raises(parts.PartsError, match="found 2; carry all anew"):
            parts.read_manifest(folder)

    def test_a_folder_without_parts_says_what_makes_them(self, tmp_path):
        with pytest.raises(parts.PartsError, match=r"gpu\.sh wheels"):
            parts.join(tmp_path, tmp_path / "to")


class TestWheels:
    def test_pips_list_and_pinned_lines_are_the_same(self, tmp_path):
        (tmp_path / "a.json").write_text('[{"name": "Typing_Extensions", "version": "4.16.0"}]')
        (tmp_path / "b.txt").write_text("# there\nTyping_Extensions == 4.16.0  # new\n\n")
        assert wheels.read_assumed(tmp_path / "a.json") == {"typing-extensions": "4.16.0"}
        assert wheels.read_assumed(tmp_path / "b.txt") == {"typing-extensions": "4.16.0"}

    def test_another_json_is_refused(self, tmp_path):
        (tmp_path / "a.json").write_text('[{"package": "x"}]')
        with pytest.raises(wheels.WheelsError, match="pip list --format=json"):
            wheels.read_assumed(tmp_path / "a.json")

    @pytest.mark.parametrize(
        ("requirement", "there"),
        [
            ("protobuf>=5.28,<7", False),
            ("grpcio>=1.66", True),
            ("httpx", False),
            ("torch>=2.9", True),
            ("onnxruntime-gpu>=1.22", True),
        ],
    )
    def test_what_the_machine_has_in_a_version_that_fits_stays_behind(self, requirement, there):
        """PyTorch is the machine's always, and ONNX Runtime for CUDA unless it is asked for."""
        assumed = {"protobuf": "7.36.2", "grpcio": "1.85.1"}
        assert wheels._is_there(wheels.Requirement(requirement), assumed, gpu_runtime=False) is there

    def test_onnx_runtime_for_cuda_is_carried_if_it_is_asked_for(self):
        assert not wheels._is_there(wheels.Requirement("onnxruntime-gpu>=1.22"), {}, gpu_runtime=True)


class TestEnvironment:
    def test_links_fill_what_is_missing_and_leave_what_was_carried(self, tmp_path):
        """Packages, and folders that several packages share; metadata of a carried package stay the carried one's."""
        theirs, ours = tmp_path / "theirs", tmp_path / "ours"
        for path in (
            "torch/__init__.py",
            "google/protobuf/old.py",
            "google/auth/new.py",
            "protobuf-7.0.dist-info/METADATA",
            "torch-2.11.0.dist-info/METADATA",
            "hook.pth",
            "grpc/theirs.py",
        ):
            (theirs / path).parent.mkdir(parents=True, exist_ok=True)
            (theirs / path).touch()
        for path in ("google/protobuf/__init__.py", "protobuf-6.0.dist-info/METADATA", "grpc/__init__.py"):
            (ours / path).parent.mkdir(parents=True, exist_ok=True)
            (ours / path).touch()
        environment.link_missing(theirs, ours, {"protobuf"})
        assert (ours / "torch").resolve() == theirs / "torch"
        assert (ours / "google" / "auth" / "new.py").exists()
        assert sorted(path.name for path in (ours / "google" / "protobuf").iterdir()) == ["__init__.py"]
        assert sorted(path.name for path in ours.glob("*.dist-info")) == [
            "protobuf-6.0.dist-info",
            "torch-2.11.0.dist-info",
        ]
        assert not (ours / "hook.pth").exists()
        assert sorted(path.name for path in (ours / "grpc").iterdir()) == ["__init__.py"]

    def test_the_machines_own_packages_are_not_written_to(self, tmp_path):
        theirs, ours = tmp_path / "theirs", tmp_path / "ours"
        (theirs / "nvidia" / "cublas").mkdir(parents=True)
        (ours / "nvidia" / "cudnn").mkdir(parents=True)
        before = sorted(theirs.rglob("*"))
        environment.link_missing(theirs, ours, set())
        environment.link_missing(theirs, ours, set())
        assert sorted(theirs.rglob("*")) == before
        assert (ours / "nvidia" / "cublas").is_symlink()


class TestState:
    def test_what_is_finished_is_there_in_the_next_call(self, tmp_path):
        path = tmp_path / "state.json"
        State(path).put("cell a", "d1", "done", seconds=1.234, result={"x": 1})
        again = State(path)
        assert again.final("cell a", "d1")
        assert again.result("cell a", "d1") == {"x": 1}
        assert [each.name for each in tmp_path.iterdir()] == ["state.json"]

    def test_what_depends_on_something_else_now_is_not(self, tmp_path):
        state = State(tmp_path / "state.json")
        state.put("cell a", fingerprint({"driver": "580.1"}), "done", result=1)
        assert not state.final("cell a", fingerprint({"driver": "580.2"}))
        assert state.result("cell a", fingerprint({"driver": "580.2"})) is None

    def test_a_refusal_is_final_and_a_failure_is_tried_again(self, tmp_path):
        state = State(tmp_path / "state.json")
        state.put("a", "d", "refused", reason="no bf16")
        state.put("b", "d", "failed", reason="crashed")
        assert state.final("a", "d")
        assert not state.final("b", "d")
        assert state.result("a", "d") is None

    def test_another_file_is_not_overwritten(self, tmp_path):
        (tmp_path / "state.json").write_text("[1, 2]")
        with pytest.raises(ValueError, match="expected the state of an earlier call"):
            State(tmp_path / "state.json")


class TestPlan:
    def test_every_cell_is_planned_once_after_its_export(self):
        for jobs in (1, 4, 16):
            exported, planned = set(), []
            for step in steps(["onnxruntime", "aoti"], FULL, jobs):
                if not step.cells:
                    exported |= set(step.variants)
                for name in step.cells:
                    assert step.variants[0] in exported
                    planned.append((step.variants[0], name))
            assert len(planned) == len(set(planned)) == 8 * len(cells(FULL))

    def test_what_the_goals_are_about_comes_first(self):
        """Batch 64, batch 1 and saturation of every net and precision, before any other batch size."""
        order = [name for step in steps(["aoti"], FULL, 4) for name in step.cells]
        assert order[:3] == ["64", "1", SATURATION]
        assert set(order[:12]) == {"64", "1", SATURATION}

    def test_a_call_begins_nothing_that_would_not_end_in_time(self):
        budget = Budget(100.0, now=0.0)
        assert budget.allows(60.0, now=0.0)
        assert budget.allows(40.0, now=60.0)
        assert not budget.allows(41.0, now=60.0)
        assert budget.allows(10.0, now=60.0)

    def test_a_call_that_is_shorter_than_anything_still_gets_on(self):
        """Or the same short call would never finish a long export."""
        budget = Budget(10.0, now=0.0)
        assert budget.allows(60.0, now=1.0)
        assert not budget.allows(60.0, now=2.0)

    def test_without_a_budget_everything_is_begun(self):
        assert Budget(None, now=0.0).allows(1e6, now=1e6)


class TestGoals:
    def test_ratios_and_overheads_are_taken_round_by_round(self):
        measured = cell(memory=0.9, overhead_ms=0.4)
        measured["ways"][MEMORY]["rows_per_s"][0] *= 0.5
        spread = goals.ratio(measured, MEMORY)
        assert (spread.median, spread.lowest) == pytest.approx((0.9, 0.45))
        assert goals.overhead_ms(measured, MEMORY).median == pytest.approx(0.4)

    def test_each_goal_is_reached_or_missed_by_its_own_number(self):
        reached = [goal.reached for goal in goals.goals(cell(), cell(batch=1), saturation())]
        missed = [
            goal.reached
            for goal in goals.goals(
                cell(memory=0.89, grpc=0.74), cell(batch=1, overhead_ms=0.51), saturation(utilisation=0.89)
            )
        ]
        assert reached == [True] * 4
        assert missed == [False] * 4

    def test_what_is_not_measured_is_neither(self):
        assert [goal.reached for goal in goals.goals(None, None, saturation(utilisation=None))] == [None] * 4

    @pytest.mark.parametrize(
        ("measured", "limit"),
        [
            (saturation(), "compute"),
            (saturation(client_cpu=0.95), "compute"),
            (saturation(utilisation=0.5, client_cpu=0.95, moving=0.4), "client"),
            (saturation(utilisation=0.5, moving=0.4), "copies"),
            (saturation(utilisation=0.5), "server"),
        ],
    )
    def test_the_limit_is_what_is_busy(self, measured, limit):
        assert goals.limit(measured) == limit


class TestReport:
    def test_a_gpus_report_has_its_name_and_every_cell(self, tmp_path):
        paths = report.write(found(all_done()), tmp_path)
        assert [path.name for path in paths] == ["nvidia-h200.json", "nvidia-h200.md"]
        written = json.loads(paths[0].read_text())
        assert written["complete"]
        assert not written["rehearsal"]
        assert [len(variant["cells"]) for variant in written["variants"]] == [8] * 4
        page = paths[1].read_text()
        assert page.startswith("# Serving on NVIDIA H200\n")
        assert "16 of 16 that were measured are reached" in page
        assert "Not measured: onnxruntime, built without CUDA (CPUExecutionProvider)" in page
        assert "| ResNet-50 | fp16 | aoti | 95.0%, reached | 80.0%, reached | 0.30 ms, reached | 97%, reached |" in page

    def test_every_table_has_as_many_fields_in_each_row_as_in_its_head(self):
        tables = report.markdown(found(all_done())).split("\n\n")
        rows = [[line.count("|") for line in table.splitlines()] for table in tables if table.startswith("|")]
        assert len(rows) == 2 + 4
        assert all(len(set(counts)) == 1 for counts in rows)

    def test_what_is_missing_failed_or_refused_is_named(self):
        entries = all_done()
        del entries["cell resnet50_fp16_aoti batch 128"]
        entries["cell bert_base_fp16_aoti batch 64"] = {"status": "failed", "reason": "it crashed"}
        entries["model bert_base_bf16_aoti"] = {"status": "refused", "reason": "no bf16 here"}
        result = found(entries)
        page = report.markdown(result)
        assert not result["complete"]
        assert "**Not complete**" in page
        assert "ResNet-50 fp16 aoti: not measured yet: batch 128" in page
        assert "BERT-base fp16 aoti, batch 64, failed: it crashed" in page
        assert "BERT-base bf16 aoti is not served: no bf16 here" in page

    @pytest.mark.parametrize(("machine", "scale"), [(MACHINE | {"device": "cpu"}, FULL), (MACHINE, QUICK)])
    def test_a_rehearsal_is_never_named_as_a_gpus_result_nor_judged(self, machine, scale, tmp_path):
        result = found(all_done(), machine=machine, scale=scale)
        assert result["rehearsal"]
        assert [path.name for path in report.write(result, tmp_path)] == ["rehearsal.json", "rehearsal.md"]
        page = report.markdown(result)
        assert page.startswith("# Rehearsal of the GPU benchmark: no result about a GPU")
        assert "reached" not in page
        assert "missed" not in page


class TestSuite:
    def test_tests_are_counted_and_what_failed_is_named(self, tmp_path):
        (tmp_path / "test_it.py").write_text(
            "import pytest\n"
            "def test_good(): pass\n"
            "def test_bad(): assert 0\n"
            "@pytest.mark.skip(reason='no GPU')\n"
            "def test_not(): pass\n"
        )
        junit = tmp_path / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={junit}", "test_it.py"]
        subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60)
        counted = suite.summarise(junit)
        assert (counted["passed"], counted["failed"], counted["skipped"]) == (1, 1, 1)
        assert counted["failures"] == ["test_it::test_bad"]
        assert counted["skip_reasons"] == ["no GPU"]

    def test_the_files_counts_are_added(self):
        one = {"passed": 2, "failed": 1, "skipped": 1, "failures": ["a::b"], "skip_reasons": ["no GPU"]}
        assert suite.total([one, one | {"failures": ["c::d"]}]) == {
            "passed": 4,
            "failed": 2,
            "skipped": 2,
            "failures": ["a::b", "c::d"],
            "skip_reasons": ["no GPU"],
        }


class TestProcess:
    def run(self, tmp_path, code, limit_s=20.0):
        command = [sys.executable, "-c", code]
        return process.answers(command, dict(os.environ), tmp_path / "log", {"task": "x"}, limit_s)

    def test_answers_come_one_by_one(self, tmp_path):
        code = "import json, sys\norder = json.load(sys.stdin)\nprint(json.dumps(order))\nprint('{}')"
        assert list(self.run(tmp_path, code)) == [{"task": "x"}, {}]

    def test_one_that_dies_is_quoted(self, tmp_path):
        with pytest.raises(TaskFailed, match=r"ended with 7; it said: .*out of memory$"):
            list(self.run(tmp_path, "import sys\nprint('out of memory', file=sys.stderr)\nsys.exit(7)"))

    def test_one_that_hangs_is_ended_with_its_children(self, tmp_path):
        code = (
            "import subprocess, sys, time\n"
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            "print('{\"pid\": %d}' % child.pid, flush=True)\n"
            "time.sleep(600)"
        )
        answers = self.run(tmp_path, code, limit_s=3.0)
        child = next(answers)["pid"]
        with pytest.raises(TaskFailed, match="more than 3 s") as caught:
            next(answers)
        assert caught.value.late
        until = time.monotonic() + 30
        while Path(f"/proc/{child}/stat").exists():
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            assert time.monotonic() < until
            time.sleep(0.05)


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--wheels", "/nowhere"], "expected a directory with part-1, part-2, … for --wheels"),
            (["--parts", "setup,models,cake"], "found 'cake'"),
            (["--budget", "soon"], "expected a time such as 540s or 9m, found 'soon'"),
            (["--budget", "0"], "expected a time"),
            (["--device", "tpu"], "invalid choice"),
            (["wheels"], "the following arguments are required: DIR"),
            (["wheels", "x", "--part-size", "50 cows"], "expected a size such as 50MB, found '50 cows'"),
            (["wheels", "x", "--assume", "/nowhere"], "expected a file, found none at /nowhere"),
        ],
    )
    def test_wrong_usage_is_2_and_says_what_is_expected(self, arguments, said):
        done = gpu_sh(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("command", [[], ["wheels"]])
    def test_help_has_examples(self, command):
        done = gpu_sh(*command, "--help")
        assert done.returncode == 0
        assert "examples:" in done.stdout

    def test_a_folder_without_parts_fails_the_setup(self, tmp_path):
        done = gpu_sh("--wheels", str(tmp_path), "--work", str(tmp_path / "my work"), "--device", "cpu")
        assert done.returncode == 1
        assert "setup failed: expected part-1" in done.stdout

    def test_a_gpu_that_is_asked_for_and_is_not_there_is_1(self, tmp_path):
        """Only where none is: elsewhere this would begin to measure."""
        if Path("/proc/driver/nvidia/version").exists():
            pytest.skip("there is a GPU")
        done = gpu_sh("--work", str(tmp_path / "w"), "--device", "cuda", "--parts", "setup,inspect")
        assert done.returncode == 1
        assert "expected a GPU that PyTorch" in done.stdout

    def test_an_interrupt_leaves_a_state_that_goes_on(self, tmp_path):
        work = tmp_path / "my work"
        command = [str(BENCHMARKS / "gpu.sh"), "--work", str(work), "--device", "cpu", "--quick"]
        parts_of = ["--parts", "setup,inspect,models,report"]
        environment = {**os.environ, "PYTHON": sys.executable}
        running = subprocess.Popen([*command, *parts_of], stdout=subprocess.PIPE, text=True, env=environment)
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("export"):
                break
        running.send_signal(signal.SIGTERM)
        rest = running.stdout.read()
        running.stdout.close()
        assert running.wait(60) == 143, rest
        done = gpu_sh(*command[1:], "--parts", "setup,report")
        assert done.returncode == 0
        assert json.loads((work / "state.json").read_text())["entries"]["inspect"]["status"] == "done"
        assert not json.loads((work / "results" / "rehearsal.json").read_text())["complete"]


def test_sizes_are_read_as_people_write_them():
    assert [size_bytes(text) for text in ("50MB", "1 GiB", "123")] == [50_000_000, 1 << 30, 123]


def test_a_variant_names_its_model():
    assert Variant(net="resnet50", precision="fp16", runtime="aoti").name == "resnet50_fp16_aoti"
