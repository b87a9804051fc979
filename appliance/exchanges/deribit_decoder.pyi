from typing_extensions import disjoint_base

from appliance.exchanges.decoder import Decoder

@disjoint_base
class DeribitDecoder(Decoder): ...
