"""What a model is: its features, its networks or trees, its calibration; saved without pickle, and as ONNX.

model           every kind, one interface      features        a row as numbers
trees           boosted trees                  calibration     scores that are chances
number_target   a target that is a number      folder          how a model appears whole
onnx_export     a model as an ONNX graph       onnx_scorer     an ONNX file as a model
"""

__all__: list[str] = []
