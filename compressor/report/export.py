"""How well exported files agree with PyTorch, and how large they are."""

from rich.table import Table

from compressor.deploy.note import ExportNote, Parity
from compressor.report.tables import empty
from compressor.report.text import compact


def parity_table(parity: Parity) -> Table:
    """Show a line an engine: how many answers differ, how many images left elsewhere, its score beside PyTorch's."""
    accuracy = parity.score == "accuracy"
    share, digits = (100.0, 2) if accuracy else (1.0, 4)
    score = "accuracy %" if accuracy else "MAE"
    names = ["engine", f"other answers\n(of {parity.answers:,}, at most {parity.allowed})", "other\nexits"]
    mixed = any(found.rerouted is not None for found in parity.engines)
    names += ["other\nexperts"] if mixed else []
    table = empty("", [*names, f"test\n{score}", f"PyTorch's\n{score}", "difference"])
    for found in parity.engines:
        name = f"{found.engine} {found.version}"
        if found.score is None:
            table.add_row(name, "cannot read it")
            continue
        own, reference = share * found.score, share * parity.reference
        numbers = (f"{own:.{digits}f}", f"{reference:.{digits}f}", f"{own - reference:+.{digits}f}")
        moved = (found.moved, found.rerouted) if mixed else (found.moved,)
        table.add_row(name, str(found.differing), *map(str, moved), *numbers)
    return table


def size_line(note: ExportNote) -> str:
    """Say how large the files are beside what the network needs, and what not every layer or processor computes so."""
    lines = [f"{compact(note.file_bytes, 'B')} in files; the network's own bits are {compact(note.size_bits / 8, 'B')}"]
    for stage in note.files_in_order:
        if stage.in_float:
            lines.append(f"{stage.file} computes in float32 what was trained in integers: {', '.join(stage.in_float)}")
    if wide := [name for stage in note.files_in_order for name in stage.saturating or ()]:
        line = f"x86 processors without VNNI may saturate in {len(wide)} 8-bit layers, such as {wide[0]}"
        lines.append(f"{line}; for those, export.overflow_fix=always")
    return "\n".join(lines)
