"""The stand-in text: English prose that every CPython carries."""

import ast
import contextlib
import functools
import hashlib
import importlib
import pathlib
import re
import sysconfig
from collections.abc import Mapping, Sequence

Documents = Mapping[str, Sequence[str]]  # split -> its documents

_MODULES = """
abc argparse ast base64 bdb calendar cmd code codecs collections configparser contextlib copy csv
dataclasses datetime decimal difflib dis doctest email.message email.policy enum filecmp fileinput
fnmatch fractions ftplib functools getopt gettext glob gzip hashlib heapq hmac html.parser
http.client http.cookiejar http.cookies imaplib importlib.abc inspect io ipaddress json linecache
locale logging logging.handlers mailbox mimetypes operator optparse os pathlib pdb pickle
pickletools pkgutil platform plistlib poplib posixpath pprint profile pstats pyclbr pydoc queue
random re sched secrets selectors shelve shlex shutil smtplib socket socketserver statistics string
struct subprocess symtable sysconfig tarfile tempfile textwrap threading timeit tokenize trace
traceback types unittest.case unittest.mock urllib.parse urllib.request uuid warnings wave weakref
webbrowser xml.dom.minidom xml.etree.ElementTree xmlrpc.client xmlrpc.server zipfile zoneinfo
asyncio.streams asyncio.tasks asyncio.events
""".split()


def embedded_documents() -> Documents:
    """English prose of the running Python: its manual's topics and its library's docstrings.

    One document per topic or module; sha256 of its name decides its split (90 : 5 : 5). A
    paragraph that several documents share stays in the first alone, so no split knows another.
    """
    texts = {f"module {name}": _docstrings(name) for name in _MODULES}
    with contextlib.suppress(ImportError):  # some systems leave the manual out
        topics = importlib.import_module("pydoc_data.topics").topics
        texts |= {f"topic {name}": text for name, text in topics.items()}
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    seen: set[str] = set()
    for name, text in sorted(texts.items()):
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", text):
            lines = [line.strip() for line in paragraph.split("\n")]
            paragraph = "\n".join(line for line in lines if line)
            if paragraph and paragraph not in seen:
                seen.add(paragraph)
                paragraphs.append(paragraph)
        if paragraphs:
            share = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
            split = "train" if share < 90 else "validation" if share < 95 else "test"
            splits[split].append("\n".join(paragraphs))
    return splits


@functools.cache  # parsing the library takes seconds
def _docstrings(module: str) -> str:
    """Docstrings of a module, its public functions and classes and their public methods.

    Read from the source: what is imported may have been patched, by a test runner for one.
    """
    path = pathlib.Path(sysconfig.get_path("stdlib"), *module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    file = next((file for file in files if file.is_file()), None)
    if file is None:  # another version of Python, or one without sources
        return ""
    nodes: list[ast.AST] = [ast.parse(file.read_bytes())]
    docs = []
    while nodes:
        node = nodes.pop(0)
        docs.append(ast.get_docstring(node))
        if not isinstance(node, ast.FunctionDef):
            kinds = ast.FunctionDef | ast.ClassDef
            nodes += [x for x in node.body if isinstance(x, kinds) and not x.name.startswith("_")]
    return "\n\n".join(doc for doc in docs if doc)
