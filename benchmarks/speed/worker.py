"""Run one contender in a separate process, so that peak memory is that of this contender alone.

Reads a task, then one word per line: "first" (one run and its peak memory) or "again" (one run).
Answers each with a line of JSON; the first answer, {"ready": time}, follows the warm-up.
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
from genoscan.model import load_model


def serve(task: Task, questions: Iterator[str]) -> Iterator[dict[str, Any]]:
    """Build and warm up the contender, and yield the answer to every request."""
    settings = task.settings
    device = settings.device
    torch.set_num_threads(settings.threads)
    codes = torch.from_numpy(real_bases(settings.genome, task.length))[None]
    contender = CONTENDERS[task.contender]
    # Peers use our weights, not our kernels.
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
        # Resident memory includes imports and compiled code, device memory the weights alone.
        before = built if settings.cuda else usage.in_use(device)
        usage.reset_peak(device)
        seconds, result = timed(run, device)
        did = result if isinstance(result, dict) else {}
        yield {"seconds": seconds, "extra_bytes": usage.peak(device) - before, "did": did}


def main(questions: IO[str], answers: IO[str]) -> None:
    """Serve one task until the end of input; an error is answered as {"error": text}."""
    try:
        for answer in serve(Task.load(questions.readline()), iter(questions.readline, "")):
            print(json.dumps(answer), file=answers, flush=True)
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(json.dumps({"error": text}), file=answers, flush=True)


if __name__ == "__main__":
    # Output of libraries must not mix with the answers.
    with os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(2, 1)
        main(sys.stdin, stdout)
