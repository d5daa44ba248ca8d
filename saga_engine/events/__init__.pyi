from saga_engine.events.aggregate import Aggregate as Aggregate
from saga_engine.events.folding import replay as replay
from saga_engine.events.recorded import Recorded as Recorded
