"""Make the small golden fixtures of this folder: ``python tests/golden/make_fixtures.py [DIR]``."""

import sys
from pathlib import Path

import numpy as np
import slow_ld
import slow_losses as slow
import slow_matching

HERE = Path(__file__).resolve().parent


def main(directory=HERE):
    weights = {"temp": 0.5, "alpha": 0.01, "beta": 0.2, "gamma": 0.005, "lambda": 0.0002}
    boxes = [[[3, 5, 30, 29], [10, 8, 22, 20], [37, 41, 39, 43]], []]
    sizes, channel, whole = [[48, 40], [48, 56]], {"norm_type": "channel"}, [[0, 0, 40, 48]]
    grid = [(6, 6), (3, 3)]
    objects = [[[4, 6, 40, 38], [20, 18, 47, 47]], [[9, 3, 33, 44]]]
    cases = {
        "fgd/case1": slow.fgd(1, boxes, sizes, (6, 6), (6, 7), weights),
        "fgd/case2": slow.fgd(2, [whole, [[0, 20, 56, 48]]], sizes, (4, 6), (6, 7), weights),
        "cwd_official/case1": slow.cwd_official(
            3, (2, 4, 5, 6), **channel, divergence="kl", temperature=4.0
        ),
        "cwd_official/case2": slow.cwd_official(
            4, (2, 4, 5, 6), norm_type="spatial", divergence="kl", temperature=2.0
        ),
        "cwd_official/case3": slow.cwd_official(
            5, (2, 4, 5, 6), **channel, divergence="mse", temperature=1.0
        ),
        "cwd_mmrazor/case1": slow.cwd_mmrazor(6, (2, 4, 5, 6), tau=2.0, loss_weight=10.0),
        "cwd_rtmdet/case1": slow.cwd_rtmdet(7, (2, 3, 5, 6), 4, tau=1.0, loss_weight=2.0),
        "pkd/case1": slow.pkd(
            8, [(2, 4, 5, 6), (2, 4, 3, 3)], loss_weight=6.0, dead_student_channels=[1]
        ),
        "mgd_masked/case1": slow.mgd_masked(
            9, (2, 4, 5, 6), alpha=2e-5, mask="spatial", **{"lambda": 0.45}
        ),
        "score_l2/case1": slow.score_l2(20, (2, 4, 3, 5), 3, 6, loss_weight=2.0),
        "mgd_matching/case1": slow_matching.matching(19, (2, 3, 4, 5), 7, groups=2, batches=(2, 1)),
        "l2/case1": slow.l2(
            10,
            (2, 4, 5, 6),
            normalize=True,
            mult=10.0,
            div_element=True,
            dist=False,
            loss_weight=1.0,
        ),
        "l2/case2": slow.l2(
            11,
            (2, 4, 5, 6),
            normalize=False,
            mult=1.0,
            div_element=False,
            dist=True,
            loss_weight=2.0,
        ),
        "l2/case3": slow.l2(
            18,
            (2, 4, 5, 6),
            normalize=False,
            mult=1.0,
            div_element=False,
            dist=False,
            loss_weight=0.5,
        ),
        "kl/case1": slow.kl_case(12, (5, 7), tau=2.0, reduction="batchmean", loss_weight=3.0),
        "kl/case2": slow.kl_case(13, (2, 7, 3, 4), tau=4.0, reduction="mean", loss_weight=1.0),
        "dkd/case1": slow.dkd(
            14, (5, 7), tau=4.0, alpha=1.0, beta=8.0, reduction="batchmean", loss_weight=2.0
        ),
        "dist/case1": slow.dist(
            15, (6, 7), tau=2.0, inter_loss_weight=2.0, intra_loss_weight=0.5, loss_weight=1.0
        ),
        "ld_kd/case1": slow.ld_kd(
            16, (20, 17), T=10, reduction="mean", avg_factor=4.0, loss_weight=0.25
        ),
        "ld_vlr/case1": slow_ld.ld_vlr(slow_ld.grid_anchors(grid, (4, 8)), sum(objects, []), 4),
        "ld_head/case1": slow_ld.ld_head(
            17,
            grid,
            objects,
            3,
            strides=[4, 8],
            reg_max=3,
            topk=4,
            ld_weight=0.25,
            ld_T=10,
            vlr_weight=0.25,
            vlr_T=10,
            kd_weight=10.0,
            kd_T=2,
        ),
    }
    for name, arrays in cases.items():
        path = Path(directory) / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)
    return sorted(cases)


if __name__ == "__main__":
    print("\n".join(main(*sys.argv[1:2])))
