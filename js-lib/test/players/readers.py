"""Readers that go through a file by ranges of HTTP, as data tools do. Each prints what it has read.

readers.py make-parquet FILE
readers.py parquet URL|FILE   one column of one row group, and the number of rows
readers.py pdf URL|FILE       the number of pages, and the text of the last
readers.py urllib URL FROM TO bytes FROM to TO by urllib, to stdout
readers.py requests URL       all bytes by requests, to stdout
"""

import hashlib
import random
import sys
import urllib.request


def opened(place):
    if not place.startswith("http"):
        return open(place, "rb")
    import fsspec

    return fsspec.filesystem("http").open(place, block_size=65_536)


def make_parquet(path):
    import pyarrow
    import pyarrow.parquet

    seeded = random.Random(7)
    columns = {name: [seeded.random() for _ in range(200_000)] for name in ("a", "b", "c")}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=20_000, compression="none")


def parquet(place):
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(opened(place))
    group = file.read_row_group(file.num_row_groups // 2, columns=["b"])
    digest = hashlib.sha256(repr(group.column("b").to_pylist()).encode()).hexdigest()
    print(file.metadata.num_rows, digest)


def pdf(place):
    import pypdf

    reader = pypdf.PdfReader(opened(place))
    print(len(reader.pages), reader.pages[-1].extract_text())


def by_urllib(url, first, last):
    request = urllib.request.Request(url, headers={"Range": f"bytes={first}-{last}"})
    with urllib.request.urlopen(request) as answer:
        body = answer.read()
        # A server may ignore a range; then the reader cuts.
        sys.stdout.buffer.write(body if answer.status == 206 else body[int(first) : int(last) + 1])


def by_requests(url):
    import requests

    with requests.get(url, stream=True, timeout=60) as answer:
        answer.raise_for_status()
        for piece in answer.iter_content(65_536):
            sys.stdout.buffer.write(piece)


what, *words = sys.argv[1:]
{"make-parquet": make_parquet, "parquet": parquet, "pdf": pdf, "urllib": by_urllib, "requests": by_requests}[what](*words)
