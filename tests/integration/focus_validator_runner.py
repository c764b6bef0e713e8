"""Run the official FOCUS validator on several files in one process: `runner.py RULES FILES.json`.

Not a module of the tests: the validator's own environment runs this file. FILES.json maps a name to a file and its
dataset; the answer, one JSON object on the last line, maps each name to the rules that failed and to how many passed.
What the validator is asked is what `validate.sh` asks; a process a file would spend its time on reading the rules.
"""

import json
import logging
import os
import sys
from pathlib import Path

import duckdb
import focus_validator
from focus_validator.validator import Validator


def failed_rules(rules, file, dataset):
    """The rules of the 1.3 model that fail on a file, parents of failed rules left out, and how many pass."""
    validator = Validator(
        data_filename=file,
        output_destination=None,
        output_type="console",
        rule_set_path=rules,
        focus_dataset=dataset,
        rules_version="1.3",
        rules_block_remote_download=True,
        applicability_criteria="ALL",
    )
    validator.load()
    # One thread: the 900 queries are small, and the machine has other work.
    with duckdb.connect(config={"threads": 1}) as connection:
        results = validator.spec_rules.validate(validator.focus_data, connection=connection, data_filename=file)
    judged = {rule: result for rule, result in results.by_rule_id.items() if not result["details"].get("skipped")}
    failed = [rule for rule, result in judged.items() if not result["ok"]]
    leaves = [rule for rule in failed if "failed child rules" not in str(judged[rule]["details"].get("message"))]
    return leaves or failed, len(judged) - len(failed)


def main():
    logging.disable(logging.CRITICAL)
    rules, files = Path(sys.argv[1]).resolve(), json.loads(Path(sys.argv[2]).read_text())
    # It opens currency_codes.csv in the folder that it runs in.
    os.chdir(Path(focus_validator.__file__).parents[1])
    answers = {name: failed_rules(str(rules), file, dataset) for name, (file, dataset) in files.items()}
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
