"""What paddle2onnx makes of NMS where it does not know the number of boxes, or is told to keep all of them."""

import contextlib

import paddle


@contextlib.contextmanager
def known_number_of_boxes(model, image_shape):
    """Within, NMS is traced with the shapes that it has for one image of this size, found out by a dry forward.

    Where a graph does not say how many boxes there are (-1: GFL, PicoDet, TOOD), paddle2onnx reckons with -1 of them:
    detections get scores and boxes of other classes, without a message. And all boxes, -1 in ``nms_top_k`` and
    ``keep_top_k``, are none to ONNX: here they are as many as there are.

    Needed for: paddle2onnx 1.3.1 and 2.1.0. Clones' graphs of GFL come out right without the first of the two, which
    changes nothing there.

    Args:
        model: detector; put into eval mode.
        image_shape: [3, height, width].
    """
    from ppdet.modeling import ops

    original, shapes = ops.multiclass_nms, []

    @paddle.jit.not_to_static
    def multiclass_nms(bboxes, scores, *args, **kwargs):
        if paddle.in_dynamic_mode():
            shapes[:] = [bboxes.shape, scores.shape]
        else:
            bboxes, scores = bboxes.reshape(shapes[0]), scores.reshape(shapes[1])
            classes, boxes = shapes[1][-2:]
            for name, all_of_them in (("nms_top_k", boxes), ("keep_top_k", classes * boxes)):
                kwargs[name] = all_of_them if kwargs[name] < 0 else kwargs[name]
        return original(bboxes, scores, *args, **kwargs)

    ops.multiclass_nms = multiclass_nms
    try:
        model.eval()
        size = paddle.to_tensor([image_shape[1:]], dtype="float32")
        with paddle.no_grad():
            model({"image": paddle.zeros([1, *image_shape]), "im_shape": size, "scale_factor": paddle.ones([1, 2])})
        yield
    finally:
        ops.multiclass_nms = original
