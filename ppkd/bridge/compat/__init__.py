"""Cures for defects of Paddle and ppdet: one function a defect, each with a test that it is needed."""

from ppkd.errors import UserError

# What became of each cure on this host: name -> `looks.APPLIED`, `NOT_NEEDED` or `NOT_APPLICABLE` with its reason.
STATES = {}


def cure_ppdet():
    """Apply the cures whose defect this host has; to be called when ppdet has been imported. Again it does nothing.

    Raises:
        UserError: this ppdet is built in another way, in which a protection against what files of others may do cannot
            be put in place. Nothing goes on without it.
    """
    if STATES:
        return
    from ppkd.bridge.compat.looks import APPLIED, NOT_APPLICABLE

    needed = protections()
    for cure in cures():
        try:
            STATES[cure.__name__] = cure() or APPLIED
        except Exception as error:
            if cure in needed:
                STATES.clear()
                raise UserError(
                    f"this ppdet is built in a way that ppkd does not know, and is not used: {cure.__name__} cannot be "
                    f"applied ({error}), without which files of others could do more than docs/security.md says"
                ) from error
            if not isinstance(error, (AttributeError, ImportError)):
                raise
            # This ppdet has no such module, class or function.
            STATES[cure.__name__] = f"{NOT_APPLICABLE}: {error}"


def applied(cure):
    """Whether the cure of that name has been applied on this host."""
    from ppkd.bridge.compat.looks import APPLIED

    if cure not in STATES:
        raise UserError(f"no cure {cure!r}, or ppdet has not been imported")
    return STATES[cure] == APPLIED


def protections():
    """Those of the cures without which nothing runs: they hold what files of others may do."""
    from ppkd.bridge.compat import named_classes, no_downloads, no_eval, regular_files, safe_load

    return (
        no_eval.look_names_up,
        named_classes.look_classes_up_among_the_judged,
        no_downloads.fetch_nothing,
        safe_load.read_cached_images_as_arrays,
        regular_files.open_files_alone,
    )


def cures():
    """The cures, functions in the order in which they are applied."""
    from ppkd.bridge.compat import (
        align_conv,
        centernet_classes,
        empty_batch,
        few_cells,
        ld_head,
        loader_errors,
        loader_processes,
        neck_scales,
        newer_numpy,
        pillow_textsize,
        repvgg_alpha,
        shape_lists,
        type_promotion,
        yolox_sizes,
        zero_dim,
    )

    return (
        *protections(),
        loader_errors.raise_errors_of_the_loading_thread,
        loader_processes.end_loading_processes_with_their_parent,
        pillow_textsize.give_textsize_back,
        few_cells.take_what_cells_there_are,
        yolox_sizes.draw_sizes_apart,
        repvgg_alpha.know_that_there_is_an_alpha,
        newer_numpy.convert_tensors_of_one,
        newer_numpy.reshape_to_a_new_shape,  # before the look at what targets make of no boxes
        newer_numpy.score_boxes_by_numbers,
        newer_numpy.take_classes_for_numbers,
        zero_dim.concat_numbers,
        zero_dim.index_numbers,
        zero_dim.count_solov2_masks_in_a_list,
        shape_lists.let_rcnn_count_images,
        shape_lists.let_mask_nms_expand_by_sizes,
        shape_lists.let_ttfnet_decode_by_sizes,  # before the next one, which then counts what this one finds
        zero_dim.count_detections_in_tensors,
        type_promotion.let_quality_focal_loss_mask,
        type_promotion.let_solov2_compare_areas,
        type_promotion.let_ssd_compare_ranks,
        type_promotion.let_ttfnet_add_places,
        type_promotion.let_sparse_rcnn_compare_classes,
        type_promotion.let_queryinst_compare_classes,
        type_promotion.let_deformable_attention_divide,
        type_promotion.let_denoising_choose_labels,
        ld_head.let_ld_head_train_alone,
        type_promotion.let_assigners_take_int32_labels,  # before the last one, whose patch then wraps this one
        neck_scales.give_each_neck_its_own_scales,
        centernet_classes.count_classes_of_centernet,
        align_conv.align_without_counting_images,
        empty_batch.encode_no_boxes,
        empty_batch.learn_from_background_alone,
        empty_batch.make_fcos_targets_of_no_boxes,
        empty_batch.learn_fcos_background_alone,
        empty_batch.pad_no_masks,
        empty_batch.pad_a_box_where_there_is_none,
        empty_batch.learn_solov2_background_alone,
        empty_batch.learn_picodet_background_alone,
        empty_batch.return_all_of_an_empty_assignment,
    )
