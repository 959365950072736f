"""Names under which igv.js can display sequences.

igv.js splits a locus at its first colon and at spaces, inserts sequence names into the page as HTML,
reads FASTA as Latin-1, and treats names that differ only in case or in the prefix "chr" as the same. It
would therefore misread names such as "HLA-A*01:01" or "chr5:100-500" (written by bedtools getfasta).
Sequences with such names are given other names within igv.js. In a table, igv.js looks up the names of
these sequences in the bigWig files and the names to display.
"""

import re
from collections.abc import Collection, Iterable, Mapping

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
_RESERVED = {
    "all",  # the whole genome
    # igv.js uses objects as tables, in which these exist already.
    "constructor",
    "hasownproperty",
    "isprototypeof",
    "propertyisenumerable",
    "tolocalestring",
    "tostring",
    "valueof",
}
_LENGTH = 60


def igv_names(shown: Iterable[str], genome: Collection[str]) -> dict[str, str]:
    """Return names for the sequences that igv.js cannot display under their own names.

    Parameters
    ----------
    shown
        Names of the sequences on the page.
    genome
        Names of all sequences in the genome. Each new name differs from all of them.

    Returns
    -------
    dict of str to str
        New name of each sequence that needs one. New names consist of letters, digits, "_", "." and
        "-".
    """
    names = list(shown)
    # Of chr5 and chr5:100-500, the former is renamed, too: its coordinates would look like the latter.
    prefixes = {name[: colon.start()] for name in names for colon in re.finditer(":", name)}
    taken = {_identity(name) for name in genome}
    numbers: dict[str, int] = {}
    renamed = {}
    for name in names:
        if _PLAIN.fullmatch(name) and name.lower() not in _RESERVED and name not in prefixes:
            continue
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:_LENGTH]
        stem = stem if stem[0].isalnum() else f"s{stem}"
        new = stem
        while _identity(new) in taken or new.lower() in _RESERVED:
            numbers[stem] = numbers.get(stem, 1) + 1
            new = f"{stem}_{numbers[stem]}"
        taken.add(_identity(new))
        renamed[name] = new
    return renamed


def igv_name_table(shown: Collection[str], renamed: Mapping[str, str]) -> str:
    """Return the table of sequence names that igv.js loads from its setting `aliasURL`.

    Parameters
    ----------
    shown
        Names of the sequences on the page.
    renamed
        Result of `igv_names`.

    Returns
    -------
    str
        Tab-separated table with three columns: the name within igv.js, the name to display, and the
        name as igv.js reads it from a bigWig file. If igv.js needs no table, the string is empty. If it
        loads a table, igv.js no longer treats names that differ only in case or in the prefix "chr" as
        the same.
    """
    if not renamed and len({_identity(name) for name in shown}) == len(shown):
        return ""
    rows = (f"{new}\t{name}\t{name.encode().decode('latin-1')}\n" for name, new in renamed.items())
    return "#igv\tname\tbytes\n" + "".join(rows)


def _identity(name: str) -> str:
    """Return a key that is the same for all sequence names that igv.js may treat as equal."""
    bare = name.casefold().removeprefix("chr")
    return "mt" if bare == "m" else bare
