# The config is checked before anything else; its inputs are read by the rule check.
import sys
from difflib import get_close_matches
from pathlib import Path

import jsonschema
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate


def in_words(value):
    """Return a value of the config for a message."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    names = {None: "nothing", True: "true", False: "false"}
    return names[value] if value is None or isinstance(value, bool) else str(value)


def problems(error):
    """Yield jsonschema's error as lines: the key, what was found, what was expected."""
    key = ".".join(map(str, error.absolute_path)) or "top level"
    schema, value = error.schema, error.validator_value
    if error.validator == "additionalProperties":
        known = list(schema["properties"])
        for wrong in error.instance:
            if wrong not in known:
                close = get_close_matches(str(wrong), known, n=1)
                advice = (
                    f"did you mean {close[0]}?"
                    if close
                    else f"expected {', '.join(known)}"
                )
                yield f"{key}: found the key {wrong}, {advice}"
        return
    if error.validator == "required":
        # There is an error for each missing key, all of them alike.
        for missing in value:
            if missing not in error.instance:
                description = schema["properties"][missing]["description"]
                yield f"{key}: the key {missing} is missing: {description}"
        return
    if error.validator == "minProperties":
        yield f"{key}: found no entry, expected at least one"
        return
    types = {
        "string": "text",
        "integer": "a whole number",
        "boolean": "true or false",
        "object": "a mapping of keys to values",
    }
    if error.validator == "enum":
        expected = f"one of {', '.join(value)}"
    elif error.validator == "type":
        expected = types[value]
        if "propertyNames" in error.absolute_schema_path:
            expected = "text: write the name in quotation marks"
        if isinstance(error.instance, str):
            yield f'{key}: found the text "{error.instance}", expected {expected}'
            return
    elif error.validator == "minimum":
        expected = f"at least {value}"
    elif error.validator == "maxLength":
        expected = f"at most {value} characters"
    else:
        expected = schema["description"]
    yield f"{key}: found {in_words(error.instance)}, expected {expected}"


def all_problems(config, schema):
    """Return a line for each error of the config, sorted by key."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(config)
    return sorted({line for error in errors for line in problems(error)})


def files(config):
    """Yield the place in the config and the path of each input."""
    for key in "genome", "annotation":
        if key in config:
            yield key, config[key]
    for section, key in (
        ("runs", "regions"),
        ("variants", "file"),
        ("mutations", "regions"),
    ):
        for name, entry in config.get(section, {}).items():
            yield f"{section}.{name}.{key}", entry[key]


try:
    validate(config, "../schemas/config.schema.yaml")
except WorkflowError:
    # Its text is that of one error, with Python's values.
    with open(workflow.source_path("../schemas/config.schema.yaml")) as schema_file:
        lines = all_problems(config, yaml.safe_load(schema_file))
    sys.exit("\n".join(f"Error: config: {line}" for line in lines))

if not {"runs", "variants", "mutations"} & config.keys():
    sys.exit(
        "Error: config: found nothing to compute, expected runs, variants or mutations"
    )

# As a module, other rules may write them. Snakemake itself ignores the inputs of results that exist.
if workflow.modifier.is_main_snakefile():
    missing = [
        f"Error: config: {key}: {path}: file not found"
        for key, path in files(config)
        if not Path(path).is_file()
    ]
    if missing:
        sys.exit("\n".join([*missing, f"Paths are relative to {Path.cwd()}"]))
