"""Whoever installs tools first stops where that fails, and shows why: a failing installer is planted."""

import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from jm_ops.workers import ROOT

WHY = "no such package: ruff"


class Installers(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        shutil.copytree(ROOT / "scripts", self.folder / "scripts")
        shutil.copy(ROOT / "Makefile", self.folder)

    def plant(self, path, *lines):
        program = self.folder / path
        program.parent.mkdir(exist_ok=True)
        program.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        program.chmod(0o755)

    def run_it(self, *command):
        env = {
            **os.environ,
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "JM_MQ_CACHE": str(self.folder / "cache"),
        }
        return subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=30, check=False
        )

    def test_a_tool_that_cannot_be_installed_ends_what_needs_it_with_its_text(self):
        self.plant("scripts/install-ops-tools", "echo half of it", f"echo '{WHY}' >&2", "exit 9")
        for command in (["scripts/check-ops"], ["scripts/verify-ops", "."], ["scripts/verify-image", "."]):
            done = self.run_it(*command)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (9, "", f"{WHY}\n"), command)

    def test_make_ends_with_it_too(self):
        self.plant("scripts/install-ops-tools", f"echo '{WHY}' >&2", "exit 9")
        for target in ("dashboards", "check-ops"):
            done = self.run_it("make", "--no-print-directory", target)
            self.assertEqual(done.returncode, 2)
            self.assertEqual(done.stderr.splitlines()[0], WHY)

    def test_a_broker_that_cannot_be_installed_ends_the_verification(self):
        self.plant("scripts/install-ops-tools", "echo tools")
        self.plant("scripts/install-rabbitmq", f"echo '{WHY}' >&2", "exit 9")
        done = self.run_it("scripts/verify-ops", ".")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (9, "", f"{WHY}\n"))

    def test_the_installer_shows_all_that_pip_said(self):
        said = [f"echo line {number}" for number in range(60)]
        self.plant("bin/python3", 'case "$*" in *ensurepip*) exit 0 ;; esac', *said, "exit 3")
        for program in ("promtool", "mmdebstrap", "npm"):
            self.plant(f"bin/{program}")
        shutil.copytree(ROOT / "ops", self.folder / "ops", ignore=shutil.ignore_patterns("tests", "grafana"))
        done = self.run_it("scripts/install-ops-tools")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("line 0\n", done.stderr)
        self.assertIn("Could not install python", done.stderr)

    def test_apts_lock_is_waited_for(self):
        self.plant(
            "bin/apt-get",
            f'echo "$@" >>{self.folder}/asked',
            f"[ $(wc -l <{self.folder}/asked) -gt 2 ] || {{ echo 'E: Could not get lock /var/lib/apt/lists/lock.' >&2; exit 100; }}",
        )
        self.plant("bin/sleep")
        done = self.run_it("scripts/apt-install", "ruff")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        asked = (self.folder / "asked").read_text().splitlines()
        self.assertEqual(["update" in line for line in asked], [True, True, True, False])
        self.assertIn("DPkg::Lock::Timeout=600 install --yes --no-install-recommends ruff", asked[-1])

    def test_what_apt_refuses_is_told_at_once(self):
        self.plant("bin/apt-get", f"case \"$*\" in *update*) ;; *) echo '{WHY}' >&2; exit 100 ;; esac")
        done = self.run_it("scripts/apt-install", "ruff")
        self.assertEqual((done.returncode, done.stderr), (1, f"{WHY}\n"))

    def test_every_package_of_pypi_is_installed_by_its_hash(self):
        installs = [
            f"{path.name}: {line.strip()}"
            for path in (ROOT / "scripts").iterdir()
            for line in path.read_text().splitlines()
            if "pip" in line and " install " in line and not line.lstrip().startswith("#")
        ]
        self.assertEqual(len(installs), 3)
        self.assertEqual([one for one in installs if "--require-hashes" not in one], [])

    def test_no_script_and_no_target_hides_a_failure_behind_tail(self):
        files = [ROOT / "Makefile", ROOT / ".ci/run", *(ROOT / "scripts").iterdir()]
        hidden = [
            f"{path.name}: {line.strip()}"
            for path in files
            for line in path.read_text().splitlines()
            if "install" in line and "| tail" in line
        ]
        self.assertEqual(hidden, [])


if __name__ == "__main__":
    unittest.main()
