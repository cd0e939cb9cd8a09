"""Arguments of the commands that use a trained detector."""

from ppkd.cli.kinds import flag, positive, share
from ppkd.cli.shared import Help, common

_UNUSED_SLIM = "accepted as PaddleDetection does, and not read: a distilled student is a plain detector"


def eval_parser():
    """Arguments of ``tools/eval.py``."""
    parser = common("Evaluate the detector of -c with the weights of -o weights=PATH_OR_URL.")
    parser.add_argument("--slim_config", help=_UNUSED_SLIM)
    parser.add_argument("--output_eval", help="folder for the detections as COCO json (bbox.json)")
    parser.add_argument("--json", help="write the results into this file")
    parser.add_argument("--classwise", action="store_true",
                        help="also print AP by class; curves go into --output_eval, or output/eval")  # fmt: skip
    parser.add_argument("--save_prediction_only", action="store_true", help="write detections, compute no AP")
    return parser


def infer_parser():
    """Arguments of ``tools/infer.py``."""
    parser = common("Detect objects in images with the weights of -o weights=PATH_OR_URL, and draw them.")
    parser.formatter_class = Help
    parser.add_argument("--slim_config", help=_UNUSED_SLIM)
    parser.add_argument("--infer_img", nargs="+", help="one image or several; they go before --infer_dir")
    parser.add_argument("--infer_dir", help="all images of a folder")
    parser.add_argument("--output_dir", default="output/infer", help="folder for the drawn images")
    parser.add_argument("--draw_threshold", type=share, default=0.5, help="draw detections from this score on")
    parser.add_argument("--save_results", type=flag, nargs="?", const=True, default=False,
                        help="also write bbox.json, with names of files and classes")  # fmt: skip
    parser.add_argument("--visualize", type=flag, default=True, help="draw the images")
    parser.add_argument("--use_vdl", type=flag, nargs="?", const=True, default=False, help="log to VisualDL")
    parser.add_argument("--vdl_log_dir", default="vdl_log_dir/image", help="folder of the VisualDL log")
    return parser


def export_parser():
    """Arguments of ``tools/export_model.py``."""
    parser = common("Export a detector with the weights of -o weights=PATH_OR_URL for Paddle Inference.")
    parser.add_argument("--slim_config", help=_UNUSED_SLIM)
    parser.add_argument("--output_dir", default="output_inference", help="the files go to a folder of it named as -c")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx")
    parser.add_argument("--opset", type=positive, default=16, help="version of ONNX's operators (default 16)")
    return parser
