"""Frames that a client of Binance should not choke on, and must not store."""

from appliance.sim.faults import Kind


def garbage(kind: Kind) -> bytes:
    """The payload; `fragmented` has none of its own: it is how a trade is sent."""
    head = b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1790649901913,"s":"BTCUSDT","t":1,'
    tail = b'"T":1790649901913,"m":true,"M":true}}'
    match kind:
        case "truncated":
            return head + b'"p":"83034.29000000","q":"0.0006'
        case "binary":
            return bytes(range(256)) * 2
        case "huge":
            return b'{"stream":"!ticker@arr","data":"' + b"x" * (10 * 1024 * 1024 - 64) + b'"}'
        case "nan":
            return head + b'"p":"NaN","q":NaN,' + tail
        case "nested":
            return b'{"a":' * 10_000 + b"1" + b"}" * 10_000
        case "repeated":
            return head + b'"p":"1.00000000","p":"2.00000000","q":"1.00000000",' + tail
        case "futures":
            return (
                b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1790649901913,"T":1790649901913,"s":"BTCUSDT",'
                b'"t":1,"p":"83034.30","q":"0.002","X":"MARKET","m":true}}'
            )
        case "wrong_symbol":
            return (head + b'"p":"1.00000000","q":"1.00000000",' + tail).replace(b"BTC", b"NOT-LISTED").replace(b"btc", b"not-listed")
        case "not_utf8":
            return head + b'"p":"1.0\xff\xfe","q":"1.00000000",' + tail
        case "empty":
            return b""
        case "depth":
            return (
                b'{"stream":"btcusdt@depth","data":{"e":"depthUpdate","E":1790649901913,"s":"BTCUSDT","U":157,"u":160,'
                b'"b":[["83034.29000000","10.00000000"]],"a":[["83034.30000000","0.00000000"]]}}'
            )
        case "fragmented":
            raise ValueError("`fragmented` is how a trade is sent, no frame of its own")
