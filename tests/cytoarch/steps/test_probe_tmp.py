import time
from tests.cytoarch.steps.small_brain import *
from tests.cytoarch.steps.test_currency import *
def test_x(mapped):
    t=time.time()
    print(still_current(mapped), time.time()-t)
    with mapped.opened() as o:
        s=Steps(mapped,o)
        from cytoarch.steps.training import training_of
        print(training_of(o,s.training.name)[0])
        for one in IDS: print(o.catalogue.record(s.parcellation[1].product(one)).facts, o.catalogue.record(TISSUE.product(one)).facts, o.catalogue.record(s.embeddings.product(one)).facts)
