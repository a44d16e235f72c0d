// Conversations in this browser: IndexedDB, nothing leaves it.

const NAME = "swarm-chat";
const STORE = "conversations";

export class ConversationStore {
  // db: null keeps everything in memory, for a browser that stores nothing.
  constructor(db) {
    this.db = db;
    this.memory = new Map();
  }

  static async open() {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "id" });
      const db = await settled(request);
      db.onversionchange = () => db.close();
      return new ConversationStore(db);
    } catch {
      return new ConversationStore(null);
    }
  }

  get isLasting() {
    return this.db !== null;
  }

  // {id, title, updatedMs} of each, newest first.
  async list() {
    const all = this.db ? await settled(this.objects("readonly").getAll()) : [...this.memory.values()];
    return all
      .map(({ id, title, updatedMs }) => ({ id, title, updatedMs }))
      .sort((a, b) => b.updatedMs - a.updatedMs);
  }

  async load(id) {
    return (this.db ? await settled(this.objects("readonly").get(id)) : this.memory.get(id)) ?? null;
  }

  async save(conversation) {
    if (this.db) await settled(this.objects("readwrite").put(conversation));
    else this.memory.set(conversation.id, structuredClone(conversation));
  }

  async remove(id) {
    if (this.db) await settled(this.objects("readwrite").delete(id));
    else this.memory.delete(id);
  }

  objects(mode) {
    return this.db.transaction(STORE, mode).objectStore(STORE);
  }
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
