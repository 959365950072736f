"""One contender in a process of its own, so that its peak of memory is its own.

Reads a task, then one word a line: "first" (one run, its peak noted) or "again" (one run).
Answers each with a line of JSON; the first answer says that all is built and warmed up.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from typing import IO, Any

import torch

from benchmarks.alone import WARM_UP
from benchmarks.clock import timed
from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.sequence import real_bases
from benchmarks.speed.settings import Task
from genoscan import usage
from genoscan.layers.weights import load_model


def serve(task: Task, questions: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Build the contender and answer every question."""
    settings = task.settings
    device = settings.device
    torch.set_num_threads(settings.threads)
    codes = torch.from_numpy(real_bases(settings.genome, task.length))[None]
    contender = CONTENDERS[task.contender]
    # Peers take our weights, not our kernels.
    kernels = "reference" if contender.needs else settings.kernels
    model = load_model(settings.model, device=device, kernels=kernels)
    prepare = contender.build(model, settings)
    built = usage.in_use(device)
    timed(prepare(codes[:, :WARM_UP].clone()), device)
    yield {"ready": time.time()}
    run = prepare(codes)
    for question in questions:
        if question.strip() == "again":
            yield {"seconds": timed(run, device)[0]}
            continue
        # A resident set has grown by imports and compiled code; a device holds weights alone.
        before = built if settings.cuda else usage.in_use(device)
        usage.forget_peak(device)
        seconds, result = timed(run, device)
        did = result if isinstance(result, dict) else {}
        yield {"seconds": seconds, "extra_bytes": usage.peak(device) - before, "did": did}


def main(questions: IO[str], answers: IO[str]) -> None:
    """Serve one task until no more questions come; an error is an answer too."""
    try:
        for answer in serve(Task.load(questions.readline()), iter(questions.readline, "")):
            print(json.dumps(answer), file=answers, flush=True)
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(json.dumps({"error": text}), file=answers, flush=True)


if __name__ == "__main__":
    # What libraries print must not stand between the answers.
    with os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(2, 1)
        main(sys.stdin, stdout)
