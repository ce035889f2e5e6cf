"""tf.train.Example messages, in and out, with protobuf alone.

The message type is described here at run time; its field numbers are TensorFlow's
(tensorflow/core/example/{example,feature}.proto).
"""

from collections.abc import Mapping

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

Values = NDArray | list[bytes]


def _example_class():
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="spear_tf_example.proto", package="spear_tf_example", syntax="proto3"
    )

    def add_field(message, name, number, kind, repeated=False, **more):
        label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
        if isinstance(kind, str):
            more |= {"type": field.TYPE_MESSAGE, "type_name": f".spear_tf_example.{kind}"}
        else:
            more["type"] = kind
        message.field.add(name=name, number=number, label=label, **more)

    lists = (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    )
    for name, kind in lists:
        add_field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (kind, name) in enumerate(
        (("BytesList", "bytes_list"), ("FloatList", "float_list"), ("Int64List", "int64_list")), 1
    ):
        add_field(feature, name, number, kind, oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    add_field(entry, "key", 1, field.TYPE_STRING)
    add_field(entry, "value", 2, "Feature")
    add_field(features, "feature", 1, "Features.FeatureEntry", repeated=True)
    add_field(file.message_type.add(name="Example"), "features", 1, "Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    # The protobuf of Ubuntu 24.04 (3.21) has only the older of the two names.
    if hasattr(message_factory, "GetMessageClass"):
        make_class = message_factory.GetMessageClass
    else:
        make_class = message_factory.MessageFactory(pool).GetPrototype
    return make_class(pool.FindMessageTypeByName("spear_tf_example.Example"))


_Example = _example_class()


def decode_example(payload: bytes) -> dict[str, Values]:
    """Every feature of a serialised Example: float32 (n,), int64 (n,) or a list of bytes.

    Raises:
        ValueError: `payload` is no Example.
    """
    try:
        example = _Example.FromString(payload)
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example ({error})") from None
    return {key: _values(feature) for key, feature in example.features.feature.items()}


def encode_example(features: Mapping[str, Values]) -> bytes:
    """The Example of `features`: floats, integers or booleans as arrays, bytes as lists."""
    example = _Example()
    for key, values in features.items():
        feature = example.features.feature[key]
        if isinstance(values, list):
            feature.bytes_list.value.extend(values)
            continue
        flat = np.asarray(values).ravel()
        if flat.dtype.kind == "f":
            feature.float_list.value.extend(flat.tolist())
        else:
            feature.int64_list.value.extend(flat.astype(np.int64).tolist())
    return example.SerializeToString()


def _values(feature) -> Values:
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)
