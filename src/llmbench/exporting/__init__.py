"""A run's result in the format of another program, with a proof that it still is what was trained.

    job.export(run, "merged", precision="bfloat16") -> Exported(folder, proof)

1. `source` finds what is exported: the result of a finished run, or one of its checkpoints; an adapter or a whole model.
2. `material.Material` asks the trained model, base + adapter as they were trained, once, and makes the merged model's folder
   when a format asks for it.
3. The format writes its files into an empty folder, and reads them back: as far as it can, with another program than the
   one that wrote them.
4. `judging` compares what was read with what the trained model says: a `proof.Proof`, which becomes `proof.json`.
5. A folder that is proven gets its name; one that is not is kept apart, as `NAME.failed-proof`.

To add a format: write a module here with one class that has what `protocol.Format` names, and add an `FormatEntry` to
`formats.FORMATS` with its name, its precisions and the packages it needs. The class refuses what it cannot write before
anything is loaded, and has `write`, `read_back` and `tolerance`. `merged.py` and `adapter.py` are the shortest.
What of it needs another environment runs there as a process of its own and hands back arrays (`.npy`, without pickle) and JSON.

`proof`, `card` and `push` read folders only and load no torch.
"""

__all__ = ["card", "formats", "job", "proof", "protocol", "push", "source", "values"]
