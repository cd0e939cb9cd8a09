"""Which classes of ppdet a config may name, place by place, and which it may not and why.

Made by reading ppdet 2.6.0, PaddleDetection's 2.7.1 (bf81f449) and develop (666f597f) for what acts when a class is
built or called: shells, processes, files that are written, the network, text that is run, pickles. A class that stands
in neither list is refused until somebody has read it; a test holds the lists against what ppdet registers.
"""

# ruff: noqa: SIM905

# In `TrainDataset`, `EvalDataset` and `TestDataset`. They read the files that the config names.
DATASETS = frozenset(
    """
    COCODataSet COCODetDataset COCOInstSegDataset DetDataset ImageFolder Keypoint3DMultiFramesDataset
    KeypointBottomUpBaseDataset KeypointBottomUpCocoDataset KeypointBottomUpCrowdPoseDataset
    KeypointTopDownBaseDataset KeypointTopDownCocoDataset KeypointTopDownCocoWholeBodyHandDataset
    KeypointTopDownMPIIDataset Pose3DDataset SemiCOCODataSet SlicedCOCODataSet SniperCOCODataSet VOCDataSet
    WIDERFaceDataSet WIDERFaceValDataset
    """.split()
)

# In `sample_transforms` and `batch_transforms`.
TRANSFORMS = frozenset(
    """
    AugmentHSV AugmentationbyInformantionDropping AutoAugment BatchRandomResize BatchRandomResizeForSSOD
    BboxCXCYWH2XYXY BboxXYXY2XYWH CenterRandColor CropAndFlipImages CropWithDataAchorSampling CropWithSampling
    Cutmix Decode EvalAffine FlipPose FlipWarpAffine GridMask Gt2CenterNetTarget Gt2CenterTrackTarget
    Gt2FCOSTarget Gt2FairMOTTarget Gt2GFLTarget Gt2JDETargetMax Gt2JDETargetThres Gt2Solov2Target Gt2SparseTarget
    Gt2TTFTarget Gt2YoloTarget KeyPointFlip LetterBoxResize Lighting MOTRandomAffine Mixup Mosaic
    MultiscaleTestResize NoiseJitter Norm2PixelBbox NormalizeBox NormalizeImage NormalizePermute PETR_Resize Pad
    PadBatch PadBox PadGT PadMaskBatch PadRGT PadResize Permute PermuteImages PhotoMetricDistortion Poly2Array Poly2Mask
    Poly2RBox RGBReverse RResize RRotate RandomAffine RandomColorJitter RandomCrop RandomDistort RandomErasing
    RandomErasingCrop RandomErasingImage RandomExpand RandomFlip RandomFlipHalfBody3DTransformImages
    RandomFlipHalfBodyTransform RandomGaussianBlur RandomGrayscale RandomRFlip RandomRRotate RandomResize
    RandomResizeCrop RandomScaledCrop RandomSelect RandomSelects RandomShift RandomShortSideRangeResize
    RandomShortSideResize RandomSizeCrop Rbox2Poly Resize SinglePoseAffine SniperDecodeCrop StrongAugImage
    TagGenerate ToHeatmaps ToHeatmapsTopDown ToHeatmapsTopDown_DARK ToHeatmapsTopDown_UDP TopDownAffine
    TopDownEvalAffine TopDownGetRandomScaleRotation TopDownRandomFlip TopDownRandomShiftBboxCenter WarpAffine
    """.split()
)

# In `LearningRate.schedulers`.
SCHEDULES = frozenset("CosineDecay ExpWarmup LinearWarmup PiecewiseDecay".split())

# In `OptimizerBuilder.optimizer` and `.regularizer`; `lr`, a module, is what ppdet's own schedules look up there.
OPTIMIZERS = frozenset("AdamWDL Adadelta Adagrad Adam AdamW Adamax Lamb Momentum RMSProp SGD lr".split())
REGULARIZERS = frozenset("L1Decay L2Decay".split())

# In `metric`. They compare what was found, and write it into the folder of `--output_eval` or a temporary one.
METRICS = frozenset("COCO VOC RBOX SNIPERCOCO".split())

# Everywhere else: architectures, their parts, losses, assigners, readers and what holds the above.
MODULES = frozenset(
    """
    ARSL_FCOS ATSSAssigner AnchorGenerator AnchorGeneratorSSD BBoxAssigner BBoxHead BBoxLibraAssigner
    BBoxPostProcess BOTSORTTracker BaseArch BaseTrack BiFPN BlazeFace BlazeNeck BlazeNet ByteTrack CLRFPN CLRHead
    CLRNet CLRNetLoss CLRResNet COTLoss CSPDarkNet CSPPAN CSPResNet CTFocalLoss CWDFeatureLoss CascadeHead
    CascadeRCNN CascadeTwoFCHead CascadeXConvNormHead CenterFocalLoss CenterNet CenterNetDLAFPN
    CenterNetHarDNetFPN CenterNetHead CenterNetPostProcess CenterTrack CenterTrackHead CenterTracker ChannelMapper
    ClassificationCost CommonDataset ConvMixer ConvNeXt CustomCSPPAN DETR DETRBBoxPostProcess
    DETRBBoxSemiPostProcess DETRHead DETRLoss DETRPostProcess DETRTransformer DETR_SSOD DGQP DIIHead DINOHead
    DINOLoss DINOTransformer DIouLoss DLA DarkNet DeepSORT DeepSORTTracker DeformableDETRHead
    DeformableTransformer DilatedEncoder DistillPPYOLOELoss DistillYOLOv3Loss DistributionFocalLoss
    DynamicMaskHead ESNet ESPAN EmbeddingRPNHead EvalDataset EvalMOTDataset EvalMOTReader EvalReader FCOS FCOSFeat
    FCOSHead FCOSHead_ARSL FCOSLoss FCOSLossCR FCOSLossMILC FCOSRAssigner FCOSRHead FGDFeatureLoss FPN FaceHead
    FairMOT FairMOTEmbeddingHead FairMOTLoss FasterRCNN FocalLoss FocalLossCost FocalNet GFL GFLHead GIoULoss GMC
    GhostNet GroupDINOTransformer HMHead HRFPN HRNet HarDNet HigherHRNet HrHRNetHead HrHRNetLoss
    HrHRNetPostProcess HungarianMatcher HybridEncoder IouAwareLoss IouLoss JDE JDEBBoxPostProcess JDEBox
    JDEDetectionLoss JDEEmbeddingHead JDEEmbeddingLoss JDELoss JDETracker KeyPointMSELoss
    KnowledgeDistillationKLDivLoss KptL1Cost L1Loss LCNet LCPAN LDGFLHead LearningRate LiteHRNet METRO_Body
    MGDFeatureLoss MSDeformableAttention MaskAssigner MaskDINO MaskDINOHead MaskDINOLoss MaskFeat MaskHead
    MaskHybridEncoder MaskMatrixNMS MaskPostProcess MaskRCNN MaskRTDETR MatrixNMS MaxIoUAssigner MimicFeatureLoss
    MobileNet MobileNetV3 MultiClassNMS MultiHeadAttention MultiScaleDeformablePoseAttention OCSORTTracker OKSLoss
    OTAHead OTAVFLHead OksCost OptimizerBuilder PCBPyramid PETR PETRHead PETRTransformer
    PETR_DeformableDetrTransformerDecoder PETR_DeformableTransformerDecoder PETR_TransformerDecoder
    PETR_TransformerDecoderLayer PKDFeatureLoss PPHGNetV2 PPLCNetEmbedding PPYOLOE PPYOLOEContrastHead PPYOLOEHead
    PPYOLOEInsHead PPYOLOERHead PPYOLOEWithAuxHead PPYOLOFPN PPYOLOPAN PPYOLOTinyFPN PicoDet PicoFeat PicoHead
    PicoHeadV2 Pose3DLoss PoseHungarianAssigner PositionEmbedding ProbIoULoss ProposalGenerator PseudoSampler
    QRDeformableTransformer QualityFocalLoss QueryInst QueryInstLoss RBoxAssigner RCNNBox RPNHead RPNTargetAssign
    RTDETRTransformer RTDETRTransformerv2 Res2Net Res2NetC5 Res5Head ResNet ResNetEmbedding RetinaAnchorGenerator
    RetinaFeat RetinaHead RetinaNet RoIAlign RotatedTaskAlignedAssigner S2ANet S2ANetAnchorGenerator S2ANetHead
    SENet SERes5Head SIoULoss SOLOv2 SOLOv2Head SOLOv2Loss SOLOv2MaskHead SSD SSDBox SSDHead SSDLoss SSODFCOSLoss
    SSODPPYOLOELoss STrack SemiTrainReader ShuffleNetV2 SimOTAAssigner SimpleConvHead SimpleFeaturePyramid
    SmoothL1Loss SparsePostProcess SparseRCNN SparseRCNNHead SparseRCNNLoss SparseRoIHead SupContrast
    SwinTransformer TOOD TOODHead TTFBox TTFFPN TTFHead TTFNet TaskAlignedAssigner TaskAlignedAssigner_CR
    TestDataset TestMOTDataset TestMOTReader TestReader TinyPose3DHRHeatmapNet TinyPose3DHRNet TopDownHRNet
    TopdownHeatmapSimpleHead Track TrainDataset TrainReader TransEncoder TransformerEncoder
    TransformerEncoderLayer TransformerLayer TwoFCHead UniformAssigner VGG VarifocalLoss ViT VisionTransformer
    VisionTransformer2D VitPosePostProcess VitPose_TopDown WHHead Weighted_FocalLoss XConvNormHead YOLOBox
    YOLOCSPPAN YOLOF YOLOFFeat YOLOFHead YOLOX YOLOXHead YOLOv3 YOLOv3FPN YOLOv3Head YOLOv3Loss keypoint_2d_loss
    keypoint_3d_loss mean_per_vertex_error mpjpe_np normed_mpjpe rectify_pose vertices_loss weighted_mpjpe
    """.split()
)

_DRAWS = "it writes pictures into the folder that the config names"
_SLIM = "it reads another config with a loader that runs code"
_PADDLESLIM = "it hands what the config says to PaddleSlim, which was not read for this"
_FETCHES = "it reads labels by numpy.loadtxt, which also fetches addresses"
_IMGAUG = "it hands what the config says to imgaug, which was not read for this"
REFUSED = {
    "Callable": "it calls any function",
    "MOTImageFolder": "it hands the name of a video to a shell",
    "MOTDataSet": _FETCHES,
    "MCMOTDataSet": _FETCHES,
    "CULaneDataSet": "it downloads, and reads pickles from the folder it is started in",
    "CULaneDataProcess": "it takes any function of imgaug by its name",
    "CULaneTrainProcess": "it takes any function of imgaug by its name",
    "DecodeCache": "it writes files into the folder that the config names",
    "DebugVisibleImage": _DRAWS,
    "VisibleRBox": _DRAWS,
    **dict.fromkeys(
        "AddToHueAndSaturation ChannelShuffle CULaneAffine CULaneResize HorizontalFlip MultiplyAndAddToBrightness "
        "OneOfBlur".split(),
        _IMGAUG,
    ),
    **dict.fromkeys("DistillModel FGDDistillModel CWDDistillModel LDDistillModel PPYOLOEDistillModel".split(), _SLIM),
    **dict.fromkeys("OFA PTQ Pruner PrunerQAT QAT UnstructuredPruner".split(), _PADDLESLIM),
}
