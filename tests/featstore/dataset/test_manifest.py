from __future__ import annotations

import pytest

from featstore.dataset import manifest as module
from featstore.dataset.dataset import BY_DIGEST, UNLABELLED
from featstore.dataset.layouts import TEST, TRAIN, VALIDATION
from featstore.dataset.manifest import anywhere, is_manifest, read_manifest
from featstore.errors import InputError
from tests.memory import mib_taken_by


def test_path_label_and_split_are_read_in_the_manifests_order() -> None:
    found = read_manifest(b"path,label,split\nz.jpg,cat,train\na.jpg,dog,VAL\nb.jpg,dog,test\n", "m.csv")
    assert found.layout == "manifest"
    assert found.paths == ["z.jpg", "a.jpg", "b.jpg"]
    assert found.labels == ["cat", "dog", "dog"]
    assert found.splits == [TRAIN, VALIDATION, TEST]


@pytest.mark.parametrize("separator", [b",", b"\t", b";"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_separators_line_ends_and_marks_of_all_programs_are_read(separator: bytes, end: bytes, mark: bytes) -> None:
    lines = [separator.join(line) for line in ([b"Label", b" PATH "], [b"cat", b'"a b.jpg"'])]
    found = read_manifest(mark + end.join(lines) + end, "m.csv")
    assert (found.paths, found.labels, found.splits) == (["a b.jpg"], ["cat"], [BY_DIGEST])


def test_label_and_split_may_be_missing_or_empty() -> None:
    assert read_manifest(b"path\na.jpg\n", "m").splits == [UNLABELLED]
    found = read_manifest(b"path,label,split\na,cat\nb,,train\nc,cat,unlabelled\nd,cat,\n", "m")
    assert found.labels == ["cat", None, None, "cat"]
    assert found.splits == [BY_DIGEST, UNLABELLED, UNLABELLED, BY_DIGEST]


def test_other_columns_and_empty_lines_do_no_harm() -> None:
    assert read_manifest(b"id,path,note\n1,a.jpg,x,,\n\n2,b.jpg\n", "m").paths == ["a.jpg", "b.jpg"]


def test_names_that_are_not_utf8_are_kept() -> None:
    assert read_manifest(b"path\ncaf\xe9.jpg\n", "m").paths == ["caf\udce9.jpg"]


def test_all_problems_are_said_at_once_by_line() -> None:
    with pytest.raises(InputError) as caught:
        read_manifest(b"path,split\na.jpg,trian\n,test\na.jpg,test\na.jpg,train\nx\0y,\n", "m.csv")
    said = str(caught.value)
    assert "line 2: unknown split 'trian', did you mean train?" in said
    assert "line 3: no path" in said
    assert "line 5: 'a.jpg' was listed in line 4 already" in said
    assert "line 6: a path with a NUL" in said


def test_a_thousand_problems_are_not_a_thousand_lines() -> None:
    with pytest.raises(InputError, match="and 995 more"):
        read_manifest(b"path,split\n" + b"a,nowhere\n" * 1000, "m.csv")


@pytest.mark.parametrize("data", [b"", b"id,label\n1,cat\n", b"\xff\xfe\0", b'"unclosed', b"\n \n"])
def test_a_file_without_a_path_column_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        read_manifest(data, "m.csv")


def test_a_cell_without_end_is_refused_with_its_line() -> None:
    with pytest.raises(InputError, match=r"line 2: field larger.* is a quote left open"):
        read_manifest(b'path\n"' + b"x" * 200_000, "m.csv")


def test_a_manifest_is_known_by_its_header() -> None:
    assert is_manifest(b"path,label\n")
    assert is_manifest(b"label\tPath")
    assert not is_manifest(b"id,label\n1,path\n")
    assert is_manifest(b"\n  \npath,label\n")
    assert is_manifest("path,label\n".encode("utf-16"))
    assert not is_manifest(b"")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (b'a.jpg,cat\n"b.jpg,cat\nc.jpg,dog\n', "line 3: a quote is opened here and never closed"),
        (b'a.jpg,"cat\nb.jpg,cat\n"c.jpg",dog\n', "line 2: .* is a quote left open in this line"),
    ],
)
def test_a_quote_left_open_is_refused_with_its_line_and_swallows_nothing(rows: bytes, line: str) -> None:
    with pytest.raises(InputError, match=line):
        read_manifest(b"path,label\n" + rows, "m.csv")


def test_a_cell_may_hold_a_line_end_and_later_lines_keep_their_number() -> None:
    found = read_manifest(b'path,label\n"a\nb.jpg",cat\nc.jpg,"a ""big"" dog"\n', "m.csv")
    assert (found.paths, found.labels) == (["a\nb.jpg", "c.jpg"], ["cat", 'a "big" dog'])
    with pytest.raises(InputError, match="line 4: no path"):
        read_manifest(b'path,label\n"a\nb.jpg",cat\n,cat\n', "m.csv")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_with_the_way_out(encoding: str) -> None:
    with pytest.raises(InputError, match=r"UTF-16(.|\n)*save it as UTF-8"):
        read_manifest("path,label\na.jpg,cat\n".encode(encoding), "m.csv")


def test_a_label_that_is_not_utf8_is_refused_with_its_line() -> None:
    with pytest.raises(InputError, match=r"line 3: the label 'caf\\udce9' is not UTF-8(.|\n)*save it as UTF-8"):
        read_manifest(b"path,label\nb.jpg,caf\xc3\xa9\na.jpg,caf\xe9\n", "m.csv")


def test_rows_of_another_length_than_the_header_are_refused_with_their_lines() -> None:
    with pytest.raises(InputError) as caught:
        read_manifest(b"path,label\nred, round.jpg,cat\na.jpg,cat\nb.jpg\n", "m.csv")
    said = str(caught.value)
    assert "line 2: 3 columns where the header has 2" in said
    assert "line 4: 1 of 2 columns: none for the label" in said
    assert "line 3" not in said


def test_two_spellings_of_a_path_are_one_path() -> None:
    with pytest.raises(InputError, match=r"line 3: 'cls/a\.jpg' was listed in line 2 already"):
        read_manifest(b"path\n./cls/a.jpg\ncls//./a.jpg\n", "m.csv")
    found = read_manifest(b"path\n./cls/a.jpg\n../b.jpg\n/c.jpg\n", "m", anywhere)
    assert found.paths == ["cls/a.jpg", "../b.jpg", "/c.jpg"]


@pytest.mark.parametrize("path", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "./../a.jpg", "a/./../../b"])
def test_a_path_that_leaves_the_folder_is_refused_unless_it_is_allowed(path: str) -> None:
    data = f"path,label\nin/side.jpg,cat\n{path},dog\n".encode()
    with pytest.raises(InputError, match=r"line 3: .* is outside of the manifest's folder") as caught:
        read_manifest(data, "m.csv")
    assert "--outside" in str(caught.value)
    assert len(read_manifest(data, "m.csv", anywhere).paths) == 2


@pytest.mark.parametrize("path", ["a/../b.jpg", "..a/b.jpg", "a..jpg", "./a.jpg", "a/./b.jpg"])
def test_a_path_that_stays_in_the_folder_is_read(path: str) -> None:
    assert len(read_manifest(f"path\n{path}\n".encode(), "m.csv").paths) == 1


def test_a_million_lines_are_read() -> None:
    lines = "".join(f"{number}.jpg,{number % 3}\n" for number in range(1_000_000))
    found = read_manifest(b"path,label\n" + lines.encode(), "m.csv")
    assert (len(found.paths), len(set(found.labels))) == (1_000_000, 3)


def test_more_lines_than_a_manifest_may_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINES", 3)
    assert len(read_manifest(b"path\na\nb\nc\n", "m.csv").paths) == 3
    for rows in (b"a\nb\nc\nd\n", b"a\na\na\na\n"):
        with pytest.raises(InputError, match="more than 3 lines"):
            read_manifest(b"path\n" + rows, "m.csv")


@pytest.mark.parametrize(
    "data",
    [
        b"path" + b"," * 2**20,
        b"path\na" + b"," * 2**20,
        b"path\n" + b'"\n",' * (2**18 + 1),
        b"\n" * (2**20 + 1) + b"path\na",
    ],
    ids=["header", "row", "row of many lines", "nothing"],
)
def test_a_row_longer_than_any_that_is_meant_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="a row of more than 1,048,576 characters"):
        read_manifest(data, "m.csv")


def test_a_manifest_that_is_wrong_from_end_to_end_takes_little_memory() -> None:
    prepare = "from featstore.dataset.manifest import read_manifest\ndata = b'path\\n' + b'../a.jpg\\n' * 500_000"
    assert mib_taken_by(prepare, "try:\n    read_manifest(data, 'm')\nexcept ValueError:\n    pass") < 16


def test_blank_lines_above_the_header_are_skipped_but_counted() -> None:
    found = read_manifest(b"\r\n \r\nlabel\tpath\r\ncat\ta.jpg\r\n", "m.tsv")
    assert (found.paths, found.labels) == (["a.jpg"], ["cat"])
    with pytest.raises(InputError, match="line 3: no path"):
        read_manifest(b"\npath,label\n,cat\n", "m.csv")


def test_a_header_alone_is_said_to_list_no_image() -> None:
    with pytest.raises(InputError, match="the manifest lists no image"):
        read_manifest(b"path,label\n\n", "m.csv")
