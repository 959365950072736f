"""Texts of `genoscan help TOPIC`, for matters that concern several commands."""

TARGETS = """\
Targets: the quantity that is differentiated (attribute) or whose change is computed (variants, mutate)

Language models
  log-likelihood              sum of log p(base), in nats, from the first base of the region to the last of
                              the window, which extends --reach bases past the region; for bidirectional
                              models, over all bases of the window. The default.
  log-likelihood:REGION       the same over REGION only
  logit:CHROM:POS:BASE        logit of BASE at position POS (1-based, forward strand)
  log-odds:CHROM:POS:BASE     this logit minus the mean of the logits of the other three bases

Task heads (genoscan models show MODEL lists them)
  HEAD:LABEL                  logit of a label, summed over each scored region
  HEAD:LABEL@REGION           summed over REGION; a single base is @chr1:500-500
  --contrast LABEL            minus the logit of another label; strongest: of the largest other one

A base as input is differentiated; as label, it is constant. In a causal model, a base affects the
predictions of the bases downstream only, so that scores downstream of a target are 0.

Examples
  --target log-likelihood:chr1:1,001-2,000
  --target logit:chr1:40,000:A
  --target sites:donor+@chr1:2,500-2,500
"""

SCORES = """\
Scores: how the derivatives with respect to A, C, G and T at a base become one number (--score)

  centred        derivative of the observed base minus the mean of the four. The default.
  observed       derivative of the observed base (gradient x input). The default with --method
                 integrated-gradients and expected-gradients.
  magnitude      L2 norm of the four derivatives after subtraction of their mean; has no sign
  substitution   largest first-order effect of a substitution, with its sign

Sign   centred and observed: positive where the observed base raises the target. substitution: positive
       where the strongest substitution raises it.
Unit   that of the target: nats for log-likelihoods, logits for logits and labels. substitution: per
       substitution; the mean effect of the three substitutions is -4/3 times the centred score.
Gaps   bases that are N or masked have no score.

A derivative extrapolates from an infinitesimal change. Exact effects of substitutions are computed by
genoscan variants, mutate and response --finite.

An .npz file contains all four derivatives; the other formats contain the score.
"""

MEMORY = """\
Memory: what a run needs, and how to change it (genoscan plan prints it for your run)

Causal models       Windows are computed tile by tile. Memory does not depend on the length of a window,
                    apart from 1 byte per base.
  --tile            bases processed at once; smaller tiles take less memory
  --slots           stored checkpoints; fewer take less memory and more time
  --batch           windows processed together; fewer take less memory
  --memory SIZE     keep activations, on a CPU, so that parts of a window are run only once; takes more
                    memory and less time. The default is none.

Bidirectional       The activations between the layers are stored: length x width numbers per layer.
models
  --memory SIZE     budget for them, or auto: half of the available memory; with a smaller one, some are
                    recomputed
  --spill FOLDER    store them in files

Results are the same up to rounding with all of these. Models and libraries take the rest.

Disk                5 bytes per scored base until the run is complete; 16 more with .npz, and 16 more with
                    --strand both.
"""

TOPICS = {"targets": TARGETS, "scores": SCORES, "memory": MEMORY}
